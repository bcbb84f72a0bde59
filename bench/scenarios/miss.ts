// What a miss costs: a URL that was never asked for, fetched over a warm connection, stored and sent, with cache, limit, log
// and metrics on; beside proxies that only pass on.

import { haproxy } from '../peers/haproxy.ts'
import { nginx } from '../peers/nginx.ts'
import { fastifyProxy, httpProxy3 } from '../peers/node.ts'
import { varnish } from '../peers/varnish.ts'
import { cpuRatios, measure } from '../rounds.ts'
import type { Scenario } from '../scenario.ts'

export const miss: Scenario = {
  title: 'Fetched and stored: 0.7 KiB of JSON, 64 connections, a new URL each time',
  async run(bench) {
    const load = {
      path: '/api/v1/presentations/{n}',
      numbers: { from: 1 },
      connections: 64,
      seconds: bench.roundSeconds,
    }
    const contestants = []
    for (const peer of [...bench.gateways(), ...bench.present([httpProxy3, fastifyProxy, nginx, varnish, haproxy])]) {
      contestants.push({ name: peer.name, server: await bench.start(peer), load })
    }
    const rows = await measure(bench, contestants)
    return { rows, checks: cpuRatios(rows, { 'http-proxy-3': 0.7, '@fastify/http-proxy': 0.7 }) }
  },
}
