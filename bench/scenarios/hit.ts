// What a memory hit costs, with cache, limit, log and metrics on: a small body, a large one, and none where the client has
// it already.

import { ETAG, LARGE_BYTES, SMALL_BYTES } from '../origin.ts'
import { haproxy } from '../peers/haproxy.ts'
import { nginx, nginxSameWork } from '../peers/nginx.ts'
import { nodeHello } from '../peers/node.ts'
import { varnish } from '../peers/varnish.ts'
import { cpuRatios, measure, startAll } from '../rounds.ts'
import type { Check, Row, Scenario } from '../scenario.ts'

const SMALL = { path: '/api/v1/presentations/7', connections: 64 }
const LARGE = { path: '/large/7', connections: 64 }
/** The scenarios that stand beside the main one are shorter. */
const MAX_ROUNDS = 3

export const hit: Scenario = {
  title: 'Answered from the cache: 0.7 KiB of JSON, 64 connections',
  async run(bench) {
    const peers = [nginx, nginxSameWork, varnish, haproxy, nodeHello]
    const rows = await measure(bench, await startAll(bench, peers, SMALL, { status: 200, bytes: SMALL_BYTES }))
    return { rows, checks: [...cpuRatios(rows, { nginx: 0.75, Varnish: 0.6, HAProxy: 1.2 }), ...tailRatio(rows)] }
  },
}

export const hit100kB: Scenario = {
  title: 'Answered from the cache: 100 kB of JSON, 64 connections',
  async run(bench) {
    const contestants = await startAll(bench, [nginx, varnish, haproxy], LARGE, { status: 200, bytes: LARGE_BYTES })
    const rows = await measure(bench, contestants, MAX_ROUNDS)
    return { rows, checks: cpuRatios(rows) }
  },
}

export const notModified: Scenario = {
  title: '304 from the cache: the client has the current version, 64 connections',
  async run(bench) {
    const load = { ...SMALL, headers: { 'If-None-Match': ETAG } }
    // Not HAProxy: its 304 gives the length of the body that is not sent, and wrk waits for it.
    const contestants = await startAll(bench, [nginx, varnish], load, { status: 304, bytes: 0 })
    const rows = await measure(bench, contestants, MAX_ROUNDS)
    return { rows, checks: cpuRatios(rows) }
  },
}

function tailRatio([own, ...others]: readonly Row[]): Check[] {
  const [ownMs, nginxMs] = [own, others.find(({ server }) => server === nginx.name)].map((row) => row?.figures.p99Ms)
  if (ownMs === undefined || nginxMs === undefined) return []
  return [{ what: 'p99, weirgate / nginx', value: ownMs / nginxMs, goal: { atMost: 1 }, guarded: false }]
}
