// What does the record of a finished request cost: its log line, its metrics, its statistics? Nanoseconds of CPU per
// record, the kernel's and the writing thread's share included, for a cached hit; and what pino takes for a line of the
// same fields. Interleaved rounds, medians, the cost of an empty loop taken off.

import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause, setImmediate as turn } from 'node:timers/promises'
import type { RequestContext } from '../src/core/context.ts'
import { createLog } from '../src/observe/log.ts'
import { createMetrics } from '../src/observe/metrics.ts'
import { createRecorder } from '../src/observe/record.ts'
import { type Sink, createSink } from '../src/observe/sink.ts'
import { createStatistics } from '../src/observe/statistics.ts'
import { finished } from '../test/observe/request.ts'

const ROUNDS = 9
const RECORDS = 128_000
/** Of one turn of the event loop. */
const AT_ONCE = 64
const ROUTES = ['/api/v1/presentations/*', '/api/v1/templates/*', '/api/v1/themes/*', '/api/v1/ai/generate']

interface Subject {
  readonly name: string
  readonly sink: Sink
  record(ctx: RequestContext): void
  close(): void
}

export async function benchRecord(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-bench-'))
  const hits = Array.from({ length: 1024 }, (_, i) => hit(i))
  const subjects = [
    recorder('all, log to /dev/null', 'info', '/dev/null'),
    recorder('all, log to a file', 'info', join(folder, 'log')),
    recorder('metrics and statistics alone', 'silent', '/dev/null'),
    pinoLine('/dev/null'),
  ]
  const empty = { ...recorder('', 'silent', '/dev/null'), record: () => {} }
  const times = new Map<Subject, number[]>([...subjects, empty].map((subject) => [subject, []]))
  for (let round = -2; round < ROUNDS; round++) {
    for (const [subject, ns] of times) {
      const measured = await nanosecondsPerRecord(subject, hits)
      if (round >= 0) ns.push(measured)
    }
  }
  const base = median(times.get(empty) ?? [])
  for (const subject of subjects) {
    const ns = median(times.get(subject) ?? []) - base
    const { droppedLines } = subject.sink
    const dropped = droppedLines === 0 ? '' : `   (${droppedLines} lines dropped)`
    console.log(`${subject.name.padEnd(30)} ${ns.toFixed(0).padStart(5)} ns${dropped}`)
  }
  for (const subject of [...subjects, empty]) subject.close()
  rmSync(folder, { recursive: true })
}

function recorder(name: string, level: 'info' | 'silent', path: string): Subject {
  const none = (): number => 0
  const { log, sink, close } = logTo(level, path)
  const metrics = createMetrics({
    openConnections: none,
    refusedConnections: none,
    fastAnswers: none,
    openWebSockets: none,
    cacheEntries: none,
    cacheBytes: none,
    cacheDisk: null,
    overload: { isOver: false, isFull: false, lagMs: 0, refused: 0 },
    savings: () => [],
    droppedLogLines: none,
    cacheTiers: () => [],
    redisUp: () => null,
    mirrored: () => new Map(),
    upstreams: () => [],
    limitDecisions: () => [],
    limitReservations: () => [],
    tokens: () => [],
    limitStores: () => ({ subjects: 0, overflowed: 0, shared: null, leases: null }),
    purgeLog: () => null,
    fetchLeases: () => null,
    idempotency: () => ({ counts: {}, table: { keys: 0, bytes: 0, dropped: { answers: 0, keys: 0 } }, shared: null }),
    detached: () => ({ running: 0, counts: { used: 0, wasted: 0 } }),
  })
  const statistics = createStatistics(0)
  const made = createRecorder(
    { log, metrics, statistics },
    { slow: 1000, redactQuery: ['token', 'key'], userId: 'hash' },
  )
  return {
    name,
    sink,
    record: (ctx) => made.record(ctx),
    close() {
      metrics.close()
      close()
    },
  }
}

function pinoLine(path: string): Subject {
  const { log, sink, close } = logTo('info', path)
  const record = (ctx: RequestContext): void => {
    const fields = {
      request_id: ctx.id,
      user_id: null,
      client_ip: ctx.clientAddress,
      route: ctx.route,
      method: ctx.method,
      path: ctx.path,
      status_code: ctx.status,
      duration_ms: Math.round(ctx.durationMs * 100) / 100,
      upstream_ms: null,
      cache: ctx.cache,
      cache_reason: ctx.cacheReason,
      limit: null,
      bytes: ctx.bytesSent,
    }
    log.info(fields, 'Request completed')
  }
  return { name: 'a line by pino', sink, record, close }
}

function logTo(level: 'info' | 'silent', path: string) {
  const fd = openSync(path, 'w')
  const sink = createSink(fd, 8 * 1024 ** 2)
  const close = (): void => {
    sink.close()
    closeSync(fd)
  }
  return { log: createLog({ level }, sink), sink, close }
}

function hit(i: number): RequestContext {
  const route = ROUTES[i % ROUTES.length] as string
  return finished({
    id: flat(`mdx1k2j3abcdef-${(1_000_000 + i).toString(36)}`),
    clientAddress: flat(`192.0.2.${i % 200}`),
    route,
    path: flat(route.replace('*', String(i % 997))),
    receivedAtMs: performance.now(),
    durationMs: 0.02 + ((i * 7919) % 1000) / 4000,
    cache: 'hit',
    bytesSent: 700 + (i % 50),
    quota: { admitted: true, policy: 'per-client', limit: 600, remaining: i % 600 },
  })
}

/** As a parser hands it over: one piece. */
const flat = (text: string): string => Buffer.from(text).toString('latin1')

async function nanosecondsPerRecord(subject: Subject, hits: readonly RequestContext[]): Promise<number> {
  const before = process.cpuUsage()
  for (let i = 0; i < RECORDS; i += AT_ONCE) {
    for (let j = i; j < i + AT_ONCE; j++) subject.record(hits[j & 1023] as RequestContext)
    // No gateway is as fast as this, so the thread that writes is given its time.
    await (i % 4096 === 0 ? pause(2) : turn())
  }
  subject.sink.flushSync()
  await turn()
  const { user, system } = process.cpuUsage(before)
  return ((user + system) * 1000) / RECORDS
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] as number
