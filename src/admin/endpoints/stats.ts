// Numbers for people.

import { json } from './endpoint.ts'
import type { Endpoint } from './endpoint.ts'

export const STATS: readonly Endpoint[] = [
  {
    method: 'GET',
    path: '/api/stats',
    summary: 'requests, hit rate and latency per route, since start and in the last minute',
    run: (control) => json(control.stats()),
  },
]
