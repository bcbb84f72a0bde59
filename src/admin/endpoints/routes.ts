// What is running: the compiled table, the upstreams, and the configuration they came from.

import { json } from './endpoint.ts'
import type { Endpoint } from './endpoint.ts'

export const ROUTES: readonly Endpoint[] = [
  {
    method: 'GET',
    path: '/api/routes',
    summary: 'the route table, most specific first',
    run: (control) => json(control.routes()),
  },
  {
    method: 'GET',
    path: '/api/upstreams',
    summary: 'upstreams and the connections of each target',
    run: (control) => json(control.upstreams()),
  },
  {
    method: 'GET',
    path: '/api/config',
    summary: 'the running configuration, secrets hidden',
    run: (control) => json(control.config()),
  },
]
