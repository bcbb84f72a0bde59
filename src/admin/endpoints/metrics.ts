// Numbers for Prometheus.

import type { Endpoint } from './endpoint.ts'

export const METRICS: readonly Endpoint[] = [
  {
    method: 'GET',
    path: '/metrics',
    summary: 'Prometheus text format',
    run: (control) => ({ status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', text: control.metrics() }),
  },
]
