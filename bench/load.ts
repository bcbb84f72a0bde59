// Puts load on a server and tells what came back: by wrk where it is installed (precise, and cheap enough to keep a fast
// server busy from one core), else by autocannon. Closed loop: each connection asks again when its answer has come.

import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import autocannon from 'autocannon'
import { versionOf } from './machine.ts'

export interface Load {
  /** `{n}` stands for a number. */
  readonly path: string
  /** What it is: one after the other from here, or any below. */
  readonly numbers?: { readonly from: number } | { readonly below: number }
  readonly connections: number
  /** Whole. */
  readonly seconds: number
  readonly headers?: Readonly<Record<string, string>>
}

export interface LoadResult {
  /** Answered. */
  readonly requests: number
  /** Status 400 and above, broken connections, timeouts. */
  readonly errors: number
  readonly seconds: number
  readonly meanMs: number
  readonly p50Ms: number
  /** autocannon: the 97.5th. */
  readonly p95Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

export interface LoadGenerator {
  /** Cheap enough to keep a fast server busy, and with the percentiles that are asked for. */
  readonly isPrecise: boolean
  readonly name: string
  run(port: number, load: Load): Promise<LoadResult>
}

/** folder: for the scripts. */
export function createLoadGenerator(folder: string): LoadGenerator {
  const wrk = versionOf('wrk', '-v', /^wrk (?:debian\/)?(\S+)/m)
  if (wrk === null) return { name: 'autocannon', isPrecise: false, run: runAutocannon }
  const script = join(folder, 'load.lua')
  return {
    name: `wrk ${wrk}`,
    isPrecise: true,
    run: (port, load) => {
      writeFileSync(script, luaOf(load))
      return runWrk(script, port, load)
    },
  }
}

/** Percentiles are asked for in the script, as wrk itself prints none of the 95th; times are in microseconds. */
const REPORT = `
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"requests":%d,"errors":%d,"us":%d,"mean":%.1f,"p50":%.1f,"p95":%.1f,"p99":%.1f,"max":%.1f}\\n',
    summary.requests, e.connect + e.read + e.write + e.status + e.timeout, summary.duration,
    latency.mean, latency:percentile(50), latency:percentile(95), latency:percentile(99), latency.max))
end
`

function luaOf({ path, numbers }: Load): string {
  if (numbers === undefined) return REPORT
  const [before = '', after = ''] = path.split('{n}').map((text) => JSON.stringify(text))
  const next = 'from' in numbers ? 'n + 1' : `math.random(0, ${numbers.below - 1})`
  const first = 'from' in numbers ? numbers.from - 1 : 0
  return `local n = ${first}
request = function()
  n = ${next}
  return wrk.format(nil, ${before} .. n .. ${after})
end
${REPORT}`
}

async function runWrk(script: string, port: number, load: Load): Promise<LoadResult> {
  const headers = Object.entries(load.headers ?? {}).flatMap(([name, value]) => ['-H', `${name}: ${value}`])
  const url = `http://127.0.0.1:${port}${load.path.replace('{n}', '0')}`
  const args = ['-t1', `-c${load.connections}`, `-d${load.seconds}`, '-s', script, ...headers, url]
  const wrk = spawn('wrk', args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [wrk.stdout, wrk.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (said += text))
  await new Promise((resolve, reject) => wrk.once('close', resolve).once('error', reject))
  const result = /^RESULT (\{.*\})$/m.exec(said)?.[1]
  if (result === undefined) throw new Error(`wrk: ${said}`)
  const { requests, errors, us, mean, p50, p95, p99, max } = JSON.parse(result) as Record<
    'requests' | 'errors' | 'us' | 'mean' | 'p50' | 'p95' | 'p99' | 'max',
    number
  >
  const times = { meanMs: mean / 1000, p50Ms: p50 / 1000, p95Ms: p95 / 1000, p99Ms: p99 / 1000, maxMs: max / 1000 }
  return { requests, errors, seconds: us / 1e6, ...times }
}

async function runAutocannon(port: number, load: Load): Promise<LoadResult> {
  const { numbers, path, connections, seconds: duration, headers = {} } = load
  const url = `http://127.0.0.1:${port}${path}`
  let n = numbers !== undefined && 'from' in numbers ? numbers.from - 1 : 0
  const next = (): number =>
    (n = numbers !== undefined && 'below' in numbers ? Math.floor(Math.random() * numbers.below) : n + 1)
  const setupRequest = (request: autocannon.Request) => ({ ...request, path: path.replace('{n}', String(next())) })
  const requests = numbers === undefined ? [{}] : [{ setupRequest }]
  const result = await autocannon({ url, connections, duration, headers, requests })
  const { average, p50, p97_5, p99, max } = result.latency
  return {
    requests: result.requests.total,
    errors: result.errors + result['4xx'] + result['5xx'],
    seconds: result.duration,
    meanMs: average,
    p50Ms: p50,
    p95Ms: p97_5,
    p99Ms: p99,
    maxMs: max,
  }
}
