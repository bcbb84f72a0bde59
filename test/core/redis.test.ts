// The link against a real server that is well: bytes, bounds, scripts, TLS, channels, and nothing left behind.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { createRedisSubscriber } from '../../src/core/redis-subscriber.ts'
import { createRedisLink } from '../../src/core/redis.ts'
import { createCertificate } from '../support/certificate.ts'
import { closeAfterEach } from '../support/closing.ts'
import { codeOf, linksFor, listen, soon, whenDown } from '../support/redis-link.ts'
import {
  type RedisServer,
  describeWithRedis,
  freePort,
  startRedis,
  startScriptedRedis,
  until,
} from '../support/redis.ts'

const opened = closeAfterEach()
const { link, linkUp } = linksFor(opened)

describeWithRedis('a link to a healthy Redis', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())

  it('brings back every byte that it stored', async () => {
    const up = await linkUp(redis.url)
    const bytes = Buffer.from(Array.from({ length: 512 }, (_, i) => i % 256))
    await up.command('SET', bytes, bytes)
    expect(await up.command('GET', bytes)).toEqual(bytes)
    expect(await up.command('get', 'nothing')).toBeNull()
    expect(await up.command('INCRBY', 'n', 41)).toBe(41)
    expect(await up.command('MGET', 'nothing', 'n')).toEqual([null, Buffer.from('41')])
  })

  it('tells a refusal by its first word, and stays up', async () => {
    const up = await linkUp(redis.url)
    await up.command('RPUSH', 'list', 'x')
    await expect(up.command('GET', 'list')).rejects.toMatchObject({ code: 'redis_error', refusal: 'WRONGTYPE' })
    await expect(up.command('NOSUCH', 'a')).rejects.toMatchObject({ code: 'redis_error', refusal: 'ERR' })
    expect(up.isUp).toBe(true)
  })

  it('answers a pipeline in order, with a refusal in its place', async () => {
    const up = await linkUp(redis.url)
    const replies = await up.pipeline([
      ['SET', 'p', 'v'],
      ['INCR', 'p'],
      ['GET', 'p'],
    ])
    expect(replies[0]).toEqual(Buffer.from('OK'))
    expect(replies[1]).toMatchObject({ code: 'redis_error', refusal: 'ERR' })
    expect(replies[2]).toEqual(Buffer.from('v'))
    expect(await up.pipeline([])).toEqual([])
  })

  it('runs a script by its hash, again after the server has forgotten it', async () => {
    const up = await linkUp(redis.url)
    const add = up.script('return {KEYS[1], redis.call("incrby", KEYS[1], ARGV[1])}')
    const key = Buffer.from([0xff, 0x00])
    expect(await add([key], [2])).toEqual([key, 2])
    expect(await add([key], [2])).toEqual([key, 4])
    await redis.ask('SCRIPT', 'FLUSH')
    expect(await add([key], [2])).toEqual([key, 6])
    const stats = await redis.ask('INFO', 'commandstats')
    expect(stats).toMatch(/cmdstat_eval:calls=2,/)
    expect(stats).toMatch(/cmdstat_evalsha:calls=5,|cmdstat_evalsha:calls=3,/)
  })

  it('speaks to the database of the URL under its name', async () => {
    const up = await linkUp(`${redis.url}/3`)
    await up.command('SET', 'where', 'three')
    expect(await redis.ask('-n', '3', 'GET', 'where')).toBe('three')
    expect(await redis.ask('CLIENT', 'LIST')).toContain('name=weirgate-test')
  })

  it('is one shard for all keys, and writes its probes where it is told', async () => {
    const up = await linkUp(redis.url, { probeKey: 'test:probe' })
    expect(up.shards).toEqual([up.shardOf('a')])
    expect(up.shardOf('b')).toBe(up.shardOf('a'))
    expect(up.shardOf('a').keyOf('test:each')).toBe('test:each')
    expect(await redis.ask('GET', 'test:probe')).toBe('1')
  })

  it('takes 1,000 commands in flight and refuses the next at once', async () => {
    const up = await linkUp(redis.url)
    const codes = await Promise.all(Array.from({ length: 1001 }, () => codeOf(up.command('PING'))))
    expect(codes.filter((code) => code === 'none')).toHaveLength(1000)
    expect(codes[1000]).toBe('redis_overload')
    expect(await codeOf(up.command('PING'))).toBe('none')
  })

  it('takes 16 MiB of arguments in flight, no more', async () => {
    const up = await linkUp(redis.url)
    const value = Buffer.alloc(6 * 1024 ** 2)
    const codes = await Promise.all(['a', 'b', 'c'].map((key) => codeOf(up.command('SET', key, value))))
    expect(codes).toEqual(['none', 'none', 'redis_overload'])
    await redis.flush()
  })

  it('does not take a stall of the event loop for a slow Redis', async () => {
    const up = await linkUp(redis.url, soon)
    for (let round = 0; round < 3; round++) {
      const replies = Promise.all(['a', 'b', 'c'].map((key) => codeOf(up.command('GET', key))))
      const endMs = performance.now() + 200
      while (performance.now() < endMs);
      expect(await replies).toEqual(['none', 'none', 'none'])
    }
    expect(up.isUp).toBe(true)
  })

  it('leaves nothing behind when it is closed, and says so to what is in flight', async () => {
    const before = process.getActiveResourcesInfo().length
    const up = createRedisLink({ url: redis.url, name: 'test', deadlineMs: 50 }, listen().log)
    await up.whenUp(10_000)
    const inFlight = codeOf(up.command('BLPOP', 'never', 0))
    const never = up.whenUp(60_000)
    await up.close()
    expect(await inFlight).toBe('redis_lost')
    expect(await codeOf(up.command('PING'))).toBe('redis_down')
    expect(await never).toBe(true)
    await until(() => process.getActiveResourcesInfo().length <= before, 'sockets and timers to be gone')
    await up.close()
  })

  it('speaks TLS where the URL says so, and only with a server that it can trust', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'weirgate-tls-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const { key, cert } = createCertificate(['localhost'], ['127.0.0.1'])
    writeFileSync(join(folder, 'key'), key)
    writeFileSync(join(folder, 'cert'), cert)
    const port = await freePort()
    const files = ['--tls-cert-file', join(folder, 'cert'), '--tls-key-file', join(folder, 'key')]
    opened(await startRedis(['--tls-port', String(port), ...files, '--tls-auth-clients', 'no']))
    const { lines, log } = listen()
    const stranger = link(`rediss://localhost:${port}`, {}, log)
    await until(() => lines.length > 0, 'a log line')
    expect(stranger.isUp).toBe(false)
    expect(lines[0]?.fields).toMatchObject({ reason: expect.stringContaining('certificate') })
    const trusted = getCACertificates()
    setDefaultCACertificates([...trusted, cert])
    onTestFinished(() => setDefaultCACertificates(trusted))
    for (const host of ['localhost', '127.0.0.1']) {
      const up = await linkUp(`rediss://${host}:${port}`)
      expect(await codeOf(up.command('PING'))).toBe('none')
    }
  })

  it('refuses a URL that it cannot read, without repeating it', () => {
    expect(() => link('redis://u:secret@a/x')).toThrow(/^redis_down: not a Redis URL: the path ends with/)
  })
})

describeWithRedis('a subscriber', () => {
  it('hears its channels byte for byte, again after a restart, and tells when it may have missed something', async () => {
    const server = opened(await startRedis())
    const heard: [string, Buffer][] = []
    const subscriber = opened(
      createRedisSubscriber(
        { url: server.url, name: 'purge', deadlineMs: 2000, channels: ['one', 'two'] },
        (channel, message) => void heard.push([channel, message]),
        listen().log,
      ),
    )
    const changes: boolean[] = []
    subscriber.onChange((isUp) => void changes.push(isUp))
    expect(await subscriber.whenUp(10_000)).toBe(true)
    const up = await linkUp(server.url)
    const bytes = Buffer.from([0, 0xff, 0x0d, 0x0a])
    expect(await up.command('PUBLISH', 'two', bytes)).toBe(1)
    await until(() => heard.length > 0, 'a message')
    await server.restart()
    await until(() => changes.length > 2, 'the loss and the return')
    expect(await server.ask('PUBLISH', 'one', 'again')).toBe('1')
    await until(() => heard.length > 1, 'another message')
    expect(heard).toEqual([
      ['two', bytes],
      ['one', Buffer.from('again')],
    ])
    expect(changes).toEqual([true, false, true])
  })

  it('is not up before its channels are subscribed', async () => {
    const server = opened(await startScriptedRedis(([name]) => (name === 'subscribe' ? null : '+PONG\r\n')))
    const deaf = opened(
      createRedisSubscriber(
        { url: server.url, name: 'purge', deadlineMs: 50, channels: ['one'] },
        () => {},
        listen().log,
      ),
    )
    await until(() => server.seen.some(([name]) => name === 'subscribe'), 'a SUBSCRIBE')
    expect(await deaf.whenUp(300)).toBe(false)
  })

  it('finds out that Redis hangs', async () => {
    const server = opened(await startRedis())
    const subscriber = opened(
      createRedisSubscriber(
        { url: server.url, name: 'purge', deadlineMs: 50, channels: ['one'] },
        () => {},
        listen().log,
      ),
    )
    expect(await subscriber.whenUp(10_000)).toBe(true)
    server.pause()
    await whenDown(subscriber)
    server.resume()
    expect(await subscriber.whenUp(10_000)).toBe(true)
    await until(async () => (await server.ask('PUBLISH', 'one', 'x')) === '1', 'the subscription')
  })
})
