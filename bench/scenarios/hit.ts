// What a memory hit costs: 0.7 KiB of JSON, 64 connections, with cache, limit, log and metrics on.

import { haproxy } from '../peers/haproxy.ts'
import { nginx } from '../peers/nginx.ts'
import { nodeHello } from '../peers/node.ts'
import { varnish } from '../peers/varnish.ts'
import { cpuRatios, measure } from '../rounds.ts'
import type { Check, Row, Scenario } from '../scenario.ts'

const LOAD = { path: '/api/v1/presentations/7', connections: 64 }

export const hit: Scenario = {
  title: 'Answered from the cache: 0.7 KiB of JSON, 64 connections',
  async run(bench) {
    const load = { ...LOAD, seconds: bench.roundSeconds }
    const contestants = []
    for (const peer of [...bench.gateways(), ...bench.present([nginx, varnish, haproxy, nodeHello])]) {
      contestants.push({ name: peer.name, server: await bench.start(peer), load })
    }
    const rows = await measure(bench, contestants)
    return { rows, checks: [...cpuRatios(rows, { nginx: 0.75, Varnish: 0.6, HAProxy: 1.2 }), ...tailRatios(rows)] }
  },
}

function tailRatios([own, ...others]: readonly Row[]): Check[] {
  const [ownMs, nginxMs] = [own, others.find(({ server }) => server === nginx.name)].map((row) => row?.figures.p99Ms)
  if (ownMs === undefined || nginxMs === undefined) return []
  return [{ what: 'p99, weirgate / nginx', value: ownMs / nginxMs, goal: { atMost: 1 }, guarded: false }]
}
