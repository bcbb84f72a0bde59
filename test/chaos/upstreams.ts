// Targets killed, stopped and started again under load, as processes of their own: `npm run chaos`. Prints each promise
// beside what was measured, in about 30 s, and ends with 1 where one is broken.

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { closedPort } from '../support/origin.ts'

const REQUESTS_PER_SECOND = 200
const KEPT_KEYS = 50
const ORIGIN = new URL('./origin.ts', import.meta.url)

interface Sample {
  readonly method: string
  readonly id: string
  readonly path: string
  readonly status: number
  readonly atMs: number
  readonly tookMs: number
  readonly cache: string
}

class TargetProcess {
  readonly port: number
  /** How often each id was seen. */
  readonly seen: Map<string, number>
  #child: ChildProcess | null = null

  constructor(port: number, seen: Map<string, number>) {
    this.port = port
    this.seen = seen
  }

  async start(): Promise<void> {
    const child = fork(ORIGIN, [String(this.port)], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] })
    this.#child = child
    let rest = ''
    child.stdout?.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n')
      rest = lines.pop() ?? ''
      for (const id of lines) this.seen.set(id, (this.seen.get(id) ?? 0) + 1)
    })
    await once(child, 'message')
  }

  async kill(): Promise<void> {
    const child = this.#child
    if (child === null || child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }

  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child?.kill(name)
  }
}

/** Requests at a steady rate, whatever becomes of them; a tenth are POSTs, as many ask for what is cached. */
class Load {
  readonly samples: Sample[] = []
  readonly #gateway: TestGateway
  readonly #agent = new http.Agent({ keepAlive: true })
  readonly #timer: NodeJS.Timeout
  readonly #open = new Set<Promise<void>>()
  #sent = 0
  #startedAtMs = performance.now()

  constructor(gateway: TestGateway) {
    this.#gateway = gateway
    this.#timer = setInterval(() => this.#catchUp(), 5)
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await Promise.all(this.#open)
    this.#agent.destroy()
  }

  since(atMs: number): readonly Sample[] {
    return this.samples.filter((sample) => sample.atMs >= atMs)
  }

  #catchUp(): void {
    const due = ((performance.now() - this.#startedAtMs) / 1000) * REQUESTS_PER_SECOND
    while (this.#sent < due) {
      const asked = this.#ask(this.#sent++).finally(() => this.#open.delete(asked))
      this.#open.add(asked)
    }
  }

  #ask(n: number): Promise<void> {
    const method = n % 10 === 0 ? 'POST' : 'GET'
    const path = n % 10 === 1 ? `/kept/${Math.floor(n / 10) % KEPT_KEYS}` : `/live/${n}`
    const atMs = performance.now()
    return new Promise((resolve) => {
      const done = (status: number, cache: string): void => {
        this.samples.push({ method, id: String(n), path, status, atMs, tookMs: performance.now() - atMs, cache })
        resolve()
      }
      const sent = http.request(this.#gateway.url + path, {
        method,
        agent: this.#agent,
        headers: { 'X-Id': String(n) },
      })
      sent.on('error', () => done(0, ''))
      sent.on('response', (message) => {
        message.resume()
        message.on('error', () => done(0, ''))
        message.on('end', () => done(message.statusCode ?? 0, String(message.headers['x-cache'] ?? '')))
      })
      sent.end()
    })
  }
}

const sleep = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms))
const quantile = (values: readonly number[], q: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))] ?? 0
const shareOf = (part: number, whole: number): string => `${((100 * part) / Math.max(1, whole)).toFixed(2)} %`
const ms = (value: number): string => `${value.toFixed(0)} ms`

let broken = 0
function tell(what: string, promise: string, figure: string, isKept: boolean): void {
  if (!isKept) broken++
  process.stdout.write(`${isKept ? 'kept  ' : 'BROKEN'} ${what}: ${figure} (${promise})\n`)
}

const seen = new Map<string, number>()
const [one, two] = [new TargetProcess(await closedPort(), seen), new TargetProcess(await closedPort(), seen)]
await Promise.all([one.start(), two.start()])
const gateway = await startGateway(`
upstreams:
  app:
    targets: [http://127.0.0.1:${one.port}, http://127.0.0.1:${two.port}]
    health: {path: /health, interval: 1s, timeout: 500ms, slowStart: 1s}
    timeouts: {firstByte: 2s}
routes:
  - {path: /*, upstream: app}
  - {path: /kept/*, upstream: app, cache: {stale: {ifError: 1h}}}
`)
const stateOf = (i: number): string | undefined => gateway.gateway.upstreams()[0]?.targets[i]?.state
const timeUntil = async (i: number, isOut: boolean, what: string): Promise<number> => {
  const fromMs = performance.now()
  await until(() => (stateOf(i) === 'out') === isOut, what)
  return performance.now() - fromMs
}
const load = new Load(gateway)

try {
  await sleep(4000)

  let fromMs = performance.now()
  await one.kill()
  const outMs = await timeUntil(0, true, 'the killed target to be out')
  await sleep(4000)
  await one.start()
  const backMs = await timeUntil(0, false, 'the target to be back')
  await sleep(1000)
  const gets = load.since(fromMs).filter(({ method }) => method === 'GET')
  const lostGets = gets.filter(({ status }) => status !== 200).length
  const lostPosts = load.since(fromMs).filter(({ method, status }) => method === 'POST' && status !== 200)
  tell('one of two killed: out', '1 s', ms(outMs), outMs <= 1000)
  tell('one of two killed: back', '5 s', ms(backMs), backMs <= 5000)
  tell('one of two killed: GETs failed', '0.1 %', shareOf(lostGets, gets.length), lostGets <= gets.length / 1000)
  const odd = lostPosts.filter(({ status }) => status !== 502).length
  tell('one of two killed: POSTs failed, all by 502', 'those sent', String(lostPosts.length), odd === 0)

  await Promise.all([one.kill(), two.kill()])
  await sleep(200)
  fromMs = performance.now()
  await sleep(3000)
  const during = load.since(fromMs)
  await Promise.all([one.start(), two.start()])
  const startedMs = performance.now()
  const kept = during.filter(({ path }) => path.startsWith('/kept'))
  const stored = kept.filter(({ status }) => status === 200)
  const p99Ms = quantile(
    stored.map(({ tookMs }) => tookMs),
    0.99,
  )
  tell(
    'both killed: keys answered from the cache',
    'all',
    shareOf(stored.length, kept.length),
    stored.length === kept.length,
  )
  tell('both killed: p99 of those', '20 ms', ms(p99Ms), p99Ms <= 20)
  const others = during.filter(({ path }) => !path.startsWith('/kept'))
  const slowestMs = Math.max(...others.map(({ tookMs }) => tookMs))
  const isPlain = others.every(({ status }) => status === 502 || status === 503)
  tell('both killed: others get 502 or 503, the slowest after', '100 ms', ms(slowestMs), isPlain && slowestMs <= 100)
  await Promise.all([timeUntil(0, false, 'the first to be back'), timeUntil(1, false, 'the second to be back')])
  const bothMs = performance.now() - startedMs
  tell('both killed: back', '5 s', ms(bothMs), bothMs <= 5000)

  await sleep(1000)
  fromMs = performance.now()
  one.signal('SIGSTOP')
  const stoppedMs = await timeUntil(0, true, 'the stopped target to be out')
  const outAtMs = performance.now()
  await sleep(3000)
  const afterOut = load.since(outAtMs)
  const failed = afterOut.filter(({ status }) => status !== 200).length
  tell('one of two stopped: out', '1 s and two checks of 500 ms', ms(stoppedMs), stoppedMs <= 3500)
  tell('one of two stopped: failed after that', 'none', shareOf(failed, afterOut.length), failed === 0)
  one.signal('SIGCONT')
  const goesOnMs = await timeUntil(0, false, 'the target to be back')
  tell('one of two stopped: back after it goes on', '5 s', ms(goesOnMs), goesOnMs <= 5000)
  await sleep(1000)
} finally {
  await load.stop()
  await Promise.all([one.kill(), two.kill()])
  await gateway.close()
}

const twice = [...seen.values()].filter((count) => count > 1).length
const done = load.samples.filter(({ method, status }) => method === 'POST' && status === 200)
const unseen = done.filter(({ id }) => !seen.has(id)).length
tell('POSTs seen twice', 'none', `${twice} of ${seen.size}`, twice === 0)
tell('POSTs answered and not seen', 'none', `${unseen} of ${done.length}`, unseen === 0)
tell(
  'requests without any answer',
  'none',
  String(load.samples.filter(({ status }) => status === 0).length),
  load.samples.every(({ status }) => status !== 0),
)
process.exitCode = broken === 0 ? 0 : 1
