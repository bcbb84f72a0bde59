// All that a stored response can meet, at once: two instances with a Redis and a disk each, variants, codings, parts,
// conditions, changes, purges, reloads, answers that fail and break off, clients side by side. Whatever comes together, an
// answer is what its fields say, of what was asked for, and not from before a change that its instance has answered for.

import { mkdtempSync, rmSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib'
import * as fc from 'fast-check'
import { expect, it, onTestFinished } from 'vitest'
import type { PurgeRequest } from '../../src/core/control.ts'
import { type Answer, request } from '../support/client.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Script, startOrigin } from '../support/origin.ts'
import { describeWithRedis, startRedis } from '../support/redis.ts'

/** How long the origin lets each be stored: for as long as the test runs, to be asked about each time, or stale at once. */
const PATHS = { a: 'max-age=600', b: 'no-cache', c: 'max-age=0, stale-while-revalidate=600' } as const
type Path = keyof typeof PATHS
const LANGUAGES = ['en', 'de'] as const

/** Of one text at one time. */
interface Version {
  readonly path: Path
  readonly language: string
  readonly number: number
}

const tagOf = ({ path, language, number }: Version): string => `"${path}-${language}-${number}"`
const textOf = (version: Version): Buffer =>
  Buffer.from(Array.from({ length: 150 }, (_, i) => `line ${i} of ${tagOf(version)}`).join('\n'))

/** What happens to a path, by an instance. */
type Step = { readonly path: Path; readonly by: 0 | 1 } & (
  | { readonly kind: 'put' | 'post'; readonly language: string }
  | { readonly kind: 'purge'; readonly rule: PurgeRequest }
  | { readonly kind: 'reload'; readonly isOther: boolean }
  | Get
)
interface Get {
  readonly path: Path
  readonly kind: 'get'
  readonly method: 'GET' | 'HEAD'
  readonly language: string
  readonly coding: string | undefined
  readonly range: string | undefined
  /** The client holds the version before the last, or the last. */
  readonly lag: 0 | 1
  readonly holds: 'nothing' | 'strong' | 'weak' | 'part' | 'weak part'
  readonly control: string | undefined
}

const place = { path: fc.constantFrom<Path>('a', 'b', 'c'), by: fc.constantFrom(0 as const, 1 as const) }
const language = fc.constantFrom(...LANGUAGES)
const orNot = (...texts: string[]) => fc.option(fc.constantFrom(...texts), { nil: undefined })
const get = fc.record({
  ...place,
  kind: fc.constant('get' as const),
  method: fc.constantFrom('GET' as const, 'GET' as const, 'GET' as const, 'HEAD' as const),
  language,
  coding: orNot('gzip', 'br', 'zstd', 'gzip, br', 'br;q=0, gzip', 'identity'),
  range: orNot('bytes=0-99', 'bytes=100-999', 'bytes=1000-', 'bytes=-10', 'bytes=0-1,500-600', 'bytes=99999-'),
  lag: fc.constantFrom(0 as const, 1 as const),
  holds: fc.constantFrom('nothing', 'nothing', 'strong', 'weak', 'part', 'weak part'),
  control: orNot('no-cache', 'no-store', 'max-stale', 'min-fresh=9'),
})
const change = fc.record({ ...place, kind: fc.constantFrom('put' as const, 'post' as const), language })
const purge = fc.record({
  ...place,
  kind: fc.constant('purge' as const),
  rule: fc.constantFrom<PurgeRequest[]>(
    { tags: ['all'] },
    { tags: ['all'], soft: true },
    { prefix: '/' },
    { pattern: '/*', soft: true },
    { all: true },
    { urls: ['http://shop.test/a', '/c'], soft: true },
  ),
})
const reload = fc.record({ ...place, kind: fc.constant('reload' as const), isOther: fc.boolean() })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 30, arbitrary: get },
  { weight: 4, arbitrary: change },
  { weight: 1, arbitrary: purge },
  { weight: 1, arbitrary: reload },
)
/** Each is begun at once, and the next when it is over. */
const rounds = fc.array(fc.array(step, { minLength: 1, maxLength: 12 }), { minLength: 60, maxLength: 60 })

describeWithRedis('whatever comes together', () => {
  it('answers with what was asked for, as it is since the last change', { timeout: 120_000 }, async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.close())
    const folder = mkdtempSync(join(tmpdir(), 'weirgate-interplay-'))
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
    await fc.assert(
      fc.asyncProperty(rounds, async (all) => {
        expect(await play(all, redis.url, folder)).toEqual([])
      }),
      { numRuns: 5, endOnFailure: true },
    )
  })
})

let plays = 0

/** Answers what was wrong. */
async function play(all: readonly (readonly Step[])[], redisUrl: string, folder: string): Promise<readonly string[]> {
  const numbers: Record<Path, number> = { a: 0, b: 0, c: 0 }
  const origin = await startOrigin(scriptOf(numbers))
  const name = `play${plays++}`
  const yaml = (by: number, isOther: boolean) => `
listen: {address: 127.0.0.1:0}
admin: {listen: 127.0.0.1:0}
redis: {url: "${redisUrl}", namespace: ${name}, deadline: 2s}
cache: {disk: {path: ${join(folder, `${name}-${by}`)}}}
upstreams: {origin: {targets: [${origin.url}]}}
defaults: {upstream: origin}
routes:
  - path: /*
    headers: {response: {set: {X-Config: "${String(isOther)}"}}}
    cache: {scope: public, clientControl: honor, collapse: shared, tags: [all]}
`
  const gateways = [await startGateway(yaml(0, false)), await startGateway(yaml(1, false))]
  /** The number that an instance has answered a change with. */
  const known = gateways.map(() => ({ a: 0, b: 0, c: 0 }))
  const faults: string[] = []

  async function take(each: Step): Promise<void> {
    const gateway = gateways[each.by] as TestGateway
    const own = known[each.by] as Record<Path, number>
    const { path } = each
    if (each.kind === 'purge') {
      await gateway.gateway.purge(each.rule)
      return
    }
    if (each.kind === 'reload') {
      gateway.rewrite(yaml(each.by, each.isOther))
      const result = await gateway.gateway.reload()
      if (!result.ok) faults.push(result.error)
      return
    }
    const [atLeast, before] = [own[path], numbers[path]]
    const method = each.kind === 'get' ? each.method : each.kind.toUpperCase()
    const sent = {
      Host: 'shop.test',
      'Accept-Language': each.language,
      ...(each.kind === 'get' ? fieldsOf(each, Math.max(0, before - each.lag)) : {}),
    }
    const answer = await request(`${gateway.url}/${path}`, { method, headers: sent }).catch(() => null)
    // The origin has failed, or its answer broke off.
    if (answer === null || answer.status >= 500) return
    if (each.kind !== 'get') {
      own[path] = Math.max(own[path], before + 1)
      return
    }
    const asked = { method, sent, path, language: each.language }
    const fault = faultOf(asked, answer, atLeast)
    const { status, headers } = answer
    if (fault !== null) faults.push(`${fault}: ${JSON.stringify({ asked, atLeast, status, headers })}`)
  }

  try {
    for (const round of all) await Promise.all(round.map(take))
    const isBusy = ({ gateway }: TestGateway) =>
      gateway.upstreams().some(({ targets }) => targets.some((target) => target.in_flight + target.queued > 0))
    await until(() => !gateways.some(isBusy), 'no request in flight upstream')
    return faults
  } finally {
    await Promise.all(gateways.map((gateway) => gateway.close()))
    await origin.close()
  }
}

function fieldsOf({ path, language: of, coding, range, holds, method, control }: Get, number: number) {
  const tag = tagOf({ path, language: of, number })
  const isPart = method === 'GET' && range !== undefined
  return {
    ...(coding !== undefined && { 'Accept-Encoding': coding }),
    ...(control !== undefined && { 'Cache-Control': control }),
    ...(isPart && { Range: range }),
    ...(isPart && holds.endsWith('part') && { 'If-Range': holds === 'part' ? tag : `W/${tag}` }),
    ...(holds === 'strong' && { 'If-None-Match': `"other", ${tag}` }),
    ...(holds === 'weak' && { 'If-None-Match': `W/${tag}` }),
  }
}

/** An origin that does all right, but fails and breaks off now and then. Some answers take their time, so that a change may
 *  be through before what has been read before it. */
const scriptOf =
  (numbers: Record<Path, number>): Script =>
  (message, response, count) => {
    const { method, url = '/', headers } = message
    const path = url.slice(1) as Path
    if (method === 'PUT' || method === 'POST') numbers[path]++
    const version = { path, language: headers['accept-language'] ?? '', number: numbers[path] }
    if (method === 'PUT') response.writeHead(204).end()
    else if (count % 3 > 0) answer(message, response, version, count)
    else setTimeout(() => answer(message, response, version, count), 10)
  }

function answer(
  { method, url, headers }: IncomingMessage,
  response: ServerResponse,
  version: Version,
  count: number,
): unknown {
  const [tag, text] = [tagOf(version), textOf(version)]
  const fields = {
    ETag: tag,
    'Cache-Control': PATHS[version.path],
    Vary: 'Accept-Language',
    'Content-Type': 'application/json',
  }
  if (method === 'POST') return response.writeHead(200, { ...fields, 'Content-Location': url }).end(text)
  if (headers['if-none-match']?.includes(tag) === true) return response.writeHead(304, fields).end()
  if (count % 17 === 0) return response.writeHead(503).end('sick')
  if (count % 23 === 0) return response.destroy()
  const range = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '')
  if (range !== null && (headers['if-range'] ?? tag) === tag) {
    const [first, last] = [Number(range[1]), Math.min(Number(range[2]), text.length - 1)]
    const part = text.subarray(first, last + 1)
    const ofPart = { 'Content-Range': `bytes ${first}-${last}/${text.length}`, 'Content-Length': part.length }
    return response.writeHead(206, { ...fields, ...ofPart }).end(part)
  }
  if (count % 2 === 0) return response.writeHead(200, { ...fields, 'Content-Length': text.length }).end(text)
  response.writeHead(200, fields).write(text.subarray(0, 1000))
  return setImmediate(() => (count % 29 === 0 ? response.destroy() : response.end(text.subarray(1000))))
}

const DECODERS = { gzip: gunzipSync, br: brotliDecompressSync, zstd: zstdDecompressSync } as const

interface Asked {
  readonly method: string
  readonly path: Path
  readonly language: string
  readonly sent: Readonly<Record<string, string>>
}

/** What is wrong with an answer, in words; null for nothing. */
function faultOf(asked: Asked, { status, headers, rawHeaders, body }: Answer, atLeast: number): string | null {
  const { method, sent } = asked
  const { 'content-encoding': coding, 'content-length': length } = headers
  const names = rawHeaders.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase())
  const once = ['age', 'etag', 'date', 'x-cache', 'content-type', 'content-length', 'content-encoding']
  const twice = once.find((name) => names.indexOf(name) !== names.lastIndexOf(name))
  if (twice !== undefined) return `${twice} twice`
  if (!/^\d+$/.test(headers.age ?? '0')) return 'no age'
  if (status === 416) return null

  const tag = /^(W\/)?("(\w)-(\w+)-(\d+)")$/.exec(headers.etag ?? '')
  const [, weak, strong = '', path, language, number] = tag ?? []
  const varies = headers.vary?.toLowerCase() ?? ''
  if (path !== asked.path || language !== asked.language) return 'another representation'
  if (Number(number) < atLeast) return 'from before a change'
  if (!varies.includes('accept-language')) return 'varies by language, and does not say so'
  if (coding !== undefined) {
    if (weak === undefined || !varies.includes('accept-encoding')) return 'coded, and does not say so'
    if (sent['Accept-Encoding']?.includes(coding) !== true) return 'coded in a way that nobody asked for'
  }
  const text = textOf({ path: asked.path, language: asked.language, number: Number(number) })
  if (status === 304) return sent['If-None-Match']?.includes(strong) === true ? null : '304 for what is not held'
  if (method === 'HEAD') {
    return coding === undefined && Number(length ?? text.length) !== text.length ? 'another length than GET' : null
  }
  if (length !== undefined && Number(length) !== body.length) return 'another length than it says'
  if (status === 206) {
    if (coding !== undefined || weak !== undefined) return 'a part of something coded'
    if ((sent['If-Range'] ?? strong) !== strong) return 'a part of something else than what is held'
    const part = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers['content-range'] ?? '')
    if (part === null) {
      return headers['content-type']?.startsWith('multipart/byteranges') === true ? null : 'a part of nothing'
    }
    const isRight = Number(part[3]) === text.length && body.equals(text.subarray(Number(part[1]), Number(part[2]) + 1))
    return isRight ? null : 'other bytes than it says'
  }
  if (status !== 200) return 'a status that the origin has not sent'
  const whole = coding === undefined ? body : DECODERS[coding as keyof typeof DECODERS](body)
  return whole.equals(text) ? null : 'another text'
}
