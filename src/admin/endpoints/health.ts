// Is it well? The one answer that needs no token, so that a probe can ask.

import { json } from './endpoint.ts'
import type { Endpoint } from './endpoint.ts'

export const HEALTH: readonly Endpoint[] = [
  {
    method: 'GET',
    path: '/health',
    summary: 'state of the gateway; 503 while it shuts down',
    isOpen: true,
    run(control) {
      const report = control.health()
      return json(report, report.status === 'draining' ? 503 : 200)
    },
  },
]
