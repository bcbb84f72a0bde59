// What a miss costs: a URL that was never asked for, fetched over a warm connection, stored and sent, with cache, limit, log
// and metrics on; beside proxies that only pass on.

import { SMALL_BYTES } from '../origin.ts'
import { haproxy } from '../peers/haproxy.ts'
import { nginx } from '../peers/nginx.ts'
import { fastifyProxy, httpProxy3 } from '../peers/node.ts'
import { varnish } from '../peers/varnish.ts'
import { cpuRatios, measure, startAll } from '../rounds.ts'
import type { Scenario } from '../scenario.ts'

const LOAD = { path: '/api/v1/presentations/{n}', numbers: { from: 1 }, connections: 64 }

export const miss: Scenario = {
  title: 'Fetched and stored: 0.7 KiB of JSON, 64 connections, a new URL each time',
  async run(bench) {
    const peers = [httpProxy3, fastifyProxy, nginx, varnish, haproxy]
    const rows = await measure(bench, await startAll(bench, peers, LOAD, { status: 200, bytes: SMALL_BYTES }))
    return { rows, checks: cpuRatios(rows, { 'http-proxy-3': 0.7, '@fastify/http-proxy': 0.7 }) }
  },
}
