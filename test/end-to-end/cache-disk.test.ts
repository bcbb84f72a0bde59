// A cache that outlives its process: what is answered after a stop or a kill, and what must not be.

import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { startGateway } from '../support/gateway.ts'
import { type Origin, type Script, startOrigin } from '../support/origin.ts'
import { type RedisServer, describeWithRedis, startRedis } from '../support/redis.ts'
import {
  type RunningGateway,
  type SpawnOptions,
  configFile,
  runGateway,
  weirgateToEnd,
  withPorts,
} from '../support/process.ts'

const closing = closeAfterEach()

/** Answers with its path, many times, and a tag; 100 s old by then. */
const script: Script = ({ url = '/', method }, response) => {
  response.setHeader('Cache-Control', 'max-age=3600')
  response.setHeader('Age', '100')
  response.setHeader('Cache-Tag', `at${url.replaceAll('/', '-')}`)
  response.end(method === 'GET' ? bodyOf(url) : 'changed')
}

const bodyOf = (path: string): string => `${path} `.repeat(path.startsWith('/big') ? 2000 : 200)

/** The same after a restart, which takes another port. */
const HOST = { Host: 'gateway.test' }

interface Place {
  readonly origin: Origin
  readonly path: string
  /** more: of the table. */
  readonly start: (options?: SpawnOptions, more?: string) => Promise<RunningGateway>
}

async function createPlace(max = '64MiB'): Promise<Place> {
  const origin = closing(await startOrigin(script))
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-disk-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return {
    origin,
    path: join(folder, 'cache.db'),
    start: (options, more = '') =>
      runGateway(`${more}\n${table(origin, 'cache.db', max)}`, { cwd: folder, ...options }),
  }
}

const table = (origin: Pick<Origin, 'url'>, path: string, max = '64MiB') => `
cache: {disk: {path: "${path}", max: ${max}}}
upstreams: {app: {targets: ["${origin.url}"]}}
routes: [{path: /*, upstream: app, cache: {stale: {ifError: 1h}}}]
`

const get = async ({ url }: Pick<RunningGateway, 'url'>, path: string) => {
  const { status, headers, body } = await request(`${url}${path}`, { headers: HOST })
  return { status, cache: headers['x-cache'], age: Number(headers['age']), body: body.toString() }
}

async function purge({ adminUrl }: RunningGateway, rule: unknown): Promise<unknown> {
  const response = await fetch(`${adminUrl}/api/cache/purge`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(rule),
  })
  return { status: response.status, ...((await response.json()) as object) }
}

/** Whatever was stored before this is on the disk: orders are carried out one after another. */
const written = (gateway: RunningGateway) => purge(gateway, { urls: ['/nothing/of/this/name'] })

async function stop(gateway: RunningGateway, signal: NodeJS.Signals): Promise<void> {
  gateway.kill(signal)
  await gateway.end
}

describe('a cache on disk', () => {
  it.each(['SIGTERM', 'SIGKILL'] as const)(
    'answers after %s without asking the origin, as old as it is',
    async (signal) => {
      const { origin, path, start } = await createPlace()
      const beganAtMs = Date.now()
      const first = await start()
      expect(await get(first, '/kept')).toMatchObject({ cache: 'MISS', body: bodyOf('/kept') })
      if (signal === 'SIGKILL') await written(first)
      await stop(first, signal)
      expect(statSync(path).mode & 0o777).toBe(0o600)
      const second = await start()
      const hit = await get(second, '/kept')
      expect(hit).toMatchObject({ status: 200, cache: 'HIT', body: bodyOf('/kept') })
      expect(hit.age).toBeGreaterThanOrEqual(100)
      expect(hit.age).toBeLessThanOrEqual(100 + Math.ceil((Date.now() - beganAtMs) / 1000))
      expect(origin.seen).toHaveLength(1)
    },
  )

  it('answers stale when the origin fails after a restart', async () => {
    const { origin, start } = await createPlace()
    origin.answer((_request, response) => {
      response.setHeader('Cache-Control', 'max-age=0')
      response.setHeader('ETag', '"1"')
      response.end('stale')
    })
    const first = await start()
    await get(first, '/x')
    await stop(first, 'SIGTERM')
    origin.answer((_request, response) => void response.socket?.destroy())
    const second = await start()
    expect(await get(second, '/x')).toMatchObject({ status: 200, cache: 'STALE', body: 'stale' })
  })

  it.each([
    ['by URL', { urls: ['/gone'] }],
    ['by tag', { tags: ['at-gone'] }],
    ['by prefix', { prefix: '/gon' }],
    ['by pattern', { pattern: '/*one' }],
  ])('answers nothing that was purged %s before a kill', async (_how, rule) => {
    const { start } = await createPlace()
    const first = await start()
    for (const path of ['/gone', '/kept']) await get(first, path)
    expect(await purge(first, rule)).toMatchObject({ status: 200, purged: 1 })
    await stop(first, 'SIGKILL')
    const second = await start()
    expect([(await get(second, '/gone')).cache, (await get(second, '/kept')).cache]).toEqual(['MISS', 'HIT'])
  })

  it('[RFC 9111 §4.4] answers nothing that a write has changed before a kill', async () => {
    const { start } = await createPlace()
    const first = await start()
    for (const path of ['/gone', '/kept']) await get(first, path)
    expect((await request(`${first.url}/gone`, { method: 'POST', headers: HOST })).status).toBe(200)
    await stop(first, 'SIGKILL')
    const second = await start()
    expect([(await get(second, '/gone')).cache, (await get(second, '/kept')).cache]).toEqual(['MISS', 'HIT'])
  })

  it('purges what is on disk alone', async () => {
    const { start } = await createPlace()
    const first = await start()
    for (const path of ['/a', '/b']) await get(first, path)
    await stop(first, 'SIGTERM')
    const second = await start()
    expect(await purge(second, { all: true })).toMatchObject({ purged: 2 })
    expect((await get(second, '/a')).cache).toBe('MISS')
  })

  it('has only whole answers when it is killed while it writes', async () => {
    const { start } = await createPlace()
    let hits = 0
    for (let round = 0; round < 3; round++) {
      const first = await start()
      const paths = Array.from({ length: 400 }, (_, i) => `/${round}/${i}`)
      const asked = paths.map((path) => get(first, path).catch(() => null))
      await asked[200 + round * 50]
      await stop(first, 'SIGKILL')
      await Promise.all(asked)
      const second = await start()
      for (const path of paths) {
        const { status, cache, body } = await get(second, path)
        expect([status, body === bodyOf(path)]).toEqual([200, true])
        if (cache === 'HIT') hits++
      }
      await stop(second, 'SIGTERM')
    }
    expect(hits).toBeGreaterThan(0)
  })
})

describe('a disk that makes trouble', () => {
  it('is refused at the start where the file cannot be made', async () => {
    const { path: file } = configFile(withPorts(table({ url: 'http://127.0.0.1:1' }, '/nowhere/at/all/cache.db')))
    const { code, stdout, stderr } = await weirgateToEnd(['run', '-c', file])
    expect({ code, stdout, stderr }).toEqual({
      code: 1,
      stdout: '',
      stderr:
        'cache.disk.path: cannot use /nowhere/at/all/cache.db: its folder does not exist; make it, or name another\n',
    })
  })

  it('is refused at the start where another gateway has the file, which goes on', async () => {
    const { path, origin, start } = await createPlace()
    const first = await start()
    const { path: file } = configFile(withPorts(table(origin, path)))
    const { code, stderr } = await weirgateToEnd(['run', '-c', file])
    expect([code, stderr]).toEqual([
      1,
      `cache.disk.path: cannot use ${path}: another gateway has it open; each needs a file of its own\n`,
    ])
    expect([(await get(first, '/x')).cache, (await get(first, '/x')).cache]).toEqual(['MISS', 'HIT'])
  })

  it('is told where it was damaged, and begins empty', async () => {
    const { path, start } = await createPlace()
    writeFileSync(path, 'no database '.repeat(1000))
    const gateway = await start()
    await gateway.printed(/starts empty/)
    expect(gateway.log).toMatchObject([
      { level: 'WARNING', path, set_aside: `${path}.damaged`, message: 'Disk tier was damaged, it starts empty' },
    ])
    expect([(await get(gateway, '/x')).cache, (await get(gateway, '/x')).cache]).toEqual(['MISS', 'HIT'])
  })

  it('is passed over when it is full: no client sees it, one line tells it, and what is purged is gone', async () => {
    const { start } = await createPlace()
    const limit = { maxFileBytes: 256 * 1024, env: { NODE_DISABLE_COMPILE_CACHE: '1' } }
    const first = await start(limit)
    await get(first, '/gone')
    await written(first)
    const down = first.printed(/Disk tier is down/)
    for (let i = 0; i < 100; i++) expect((await get(first, `/big/${i}`)).status).toBe(200)
    await down
    const metrics = await (await fetch(`${first.adminUrl}/metrics`)).text()
    expect(metrics).toMatch(/^weirgate_cache_disk_up [01]$/m)
    expect(metrics).toMatch(/^weirgate_cache_tier_writes_total\{tier="disk",result="dropped"\} [1-9]/m)
    expect(await purge(first, { urls: ['/gone'] })).toMatchObject({ status: 200 })
    await stop(first, 'SIGKILL')
    const lines = first.log.filter(({ message }) => String(message).startsWith('Disk tier'))
    expect(lines[0]).toMatchObject({ level: 'WARNING', message: 'Disk tier is down' })
    for (const [i, { message }] of lines.entries()) {
      expect(message).toBe(i % 2 === 0 ? 'Disk tier is down' : 'Disk tier is up')
    }
    const second = await start()
    expect((await get(second, '/gone')).cache).toBe('MISS')
  })

  it('cannot be changed by a reload', async () => {
    const { origin, path } = await createPlace()
    const gateway = closing(await startGateway(table(origin, path)))
    gateway.rewrite(table(origin, `${path}2`))
    expect(await gateway.gateway.reload()).toEqual({
      ok: false,
      error: 'cache.disk: cannot change while the gateway runs; restart it, or put the old value back',
    })
  })
})

describeWithRedis('a cache on disk, with others that purge', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())
  beforeEach(() => redis.flush())

  /** Without the Redis tier's own copy of what is stored, only the disk can answer. */
  const forgetShared = async (): Promise<void> => {
    const stored = (await redis.ask('KEYS', '*:c1:*')).split('\n').filter((key) => key !== '')
    if (stored.length > 0) await redis.ask('DEL', ...stored)
  }

  it('answers nothing that another instance has purged while it was down', async () => {
    const { start, origin } = await createPlace()
    const shared = `redis: {url: "${redis.url}", deadline: 500ms}`
    const first = await start({}, shared)
    const other = await runGateway(`${shared}\n${table(origin, join(tmpdir(), 'unused')).replace(/^cache:.*$/m, '')}`)
    for (const path of ['/gone', '/kept']) await get(first, path)
    await written(first)
    await stop(first, 'SIGKILL')
    expect(await purge(other, { tags: ['at-gone'] })).toMatchObject({ status: 200, shared: true })
    await forgetShared()
    const second = await start({}, shared)
    expect([(await get(second, '/kept')).cache, (await get(second, '/gone')).cache]).toEqual(['HIT', 'MISS'])
  })

  it('answers nothing while it is not known what they have purged', async () => {
    const { start } = await createPlace()
    const first = await start({}, `redis: {url: "${redis.url}"}`)
    await get(first, '/x')
    await stop(first, 'SIGTERM')
    const second = await start({}, 'redis: {url: "redis://127.0.0.1:1"}')
    expect([(await get(second, '/x')).cache, (await get(second, '/x')).cache]).toEqual(['MISS', 'HIT'])
  })
})
