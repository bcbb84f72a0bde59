// The link against servers that die, hang, are slow, refuse, come back. Each wait is for an event; none asks how fast the
// machine is. Where a deadline must not matter it is 2 s, where it must it is 50 ms.

import { afterAll, beforeAll, expect, it } from 'vitest'
import { closeAfterEach } from '../support/closing.ts'
import { codeOf, linksFor, listen, soon, whenDown } from '../support/redis-link.ts'
import {
  type RedisServer,
  describeWithRedis,
  freePort,
  startRedis,
  startRelay,
  startScriptedRedis,
  until,
} from '../support/redis.ts'

const opened = closeAfterEach()
const { link, linkUp } = linksFor(opened)

describeWithRedis('a link whose Redis fails', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())

  it('starts without Redis, says so once, and uses it when it comes', async () => {
    const port = await freePort()
    const { lines, log } = listen()
    const down = link(`redis://:secret@127.0.0.1:${port}`, {}, log)
    expect(await codeOf(down.command('PING'))).toBe('redis_down')
    expect(await down.whenUp(1)).toBe(false)
    await until(() => lines.length > 0, 'a log line')
    const late = opened(await startRedis(['--requirepass', 'secret'], port))
    expect(await down.whenUp(3000)).toBe(true)
    expect(await codeOf(down.command('PING'))).toBe('none')
    expect(lines).toEqual([
      {
        level: 'warn',
        message: 'Redis is down',
        fields: { redis: 'test', server: late.url, reason: expect.stringContaining('ECONNREFUSED') },
      },
      {
        level: 'info',
        message: 'Redis is up',
        fields: { redis: 'test', server: late.url, down_ms: expect.any(Number) },
      },
    ])
    expect(JSON.stringify(lines)).not.toContain('secret')
  })

  it('is down with a wrong password, and tells no password', async () => {
    const locked = opened(await startRedis(['--requirepass', 'right']))
    const { lines, log } = listen()
    const down = link(locked.url.replace('://', '://:wrong-one@'), {}, log)
    await until(() => lines.length > 0, 'a log line')
    expect(down.isUp).toBe(false)
    expect(lines[0]?.fields).toMatchObject({ reason: expect.stringContaining('WRONGPASS') })
    expect(JSON.stringify(lines)).not.toContain('wrong-one')
  })

  it('fails what is in flight when Redis is killed, waits for nothing then, and is back within 3 s', async () => {
    const { lines, log } = listen()
    const up = await linkUp(redis.url, {}, log)
    const changes: boolean[] = []
    up.onChange((isUp) => void changes.push(isUp))
    const inFlight = ['a', 'b'].map((key) => codeOf(up.command('BLPOP', key, 0)))
    await redis.kill()
    expect(await Promise.all(inFlight)).toEqual(['redis_lost', 'redis_lost'])
    await whenDown(up)
    expect(await codeOf(up.command('PING'))).toBe('redis_down')
    expect(await codeOf(up.pipeline([['PING']]))).toBe('redis_down')
    expect(await codeOf(up.script('return 1')([], []))).toBe('redis_down')
    await redis.restart()
    expect(await up.whenUp(3000)).toBe(true)
    expect(await codeOf(up.command('PING'))).toBe('none')
    expect(changes).toEqual([false, true])
    expect(lines.map(({ message }) => message)).toEqual(['Redis is up', 'Redis is down', 'Redis is up'])
  })

  it('settles every command by the deadline when Redis hangs, then waits for none, and is back when it goes on', async () => {
    const up = await linkUp(redis.url, soon)
    await up.command('SET', 'hung', 'no')
    redis.pause()
    try {
      const startedAtMs = performance.now()
      expect(await codeOf(up.command('GET', 'hung'))).toBe('redis_timeout')
      expect(performance.now() - startedAtMs).toBeGreaterThanOrEqual(49)
      expect(await codeOf(up.command('GET', 'hung'))).toBe('redis_timeout')
      expect(up.isUp).toBe(false)
      expect(await codeOf(up.command('GET', 'hung'))).toBe('redis_down')
    } finally {
      redis.resume()
    }
    expect(await up.whenUp(3000)).toBe(true)
    expect(await up.command('GET', 'hung')).toEqual(Buffer.from('no'))
  })

  it('finds out, though nobody asks, that the network has swallowed the connection, and connects anew', async () => {
    const relay = opened(await startRelay(redis.port))
    const up = await linkUp(relay.url, soon)
    relay.stall()
    await whenDown(up)
    await until(() => relay.accepted > 1, 'a second connection')
    relay.release()
    expect(await up.whenUp(10_000)).toBe(true)
  })

  it.each(['end', 'reset'] as const)(
    'is down at once when the connection ends by %s, and back by itself',
    async (how) => {
      const relay = opened(await startRelay(redis.port))
      const up = await linkUp(relay.url)
      relay.cut(how)
      await whenDown(up)
      expect(await up.whenUp(10_000)).toBe(true)
      expect(relay.accepted).toBe(2)
    },
  )

  it('ignores replies that come after the deadline', async () => {
    const relay = opened(await startRelay(redis.port))
    const up = await linkUp(relay.url, soon)
    await redis.ask('SET', 'first', '1')
    await redis.ask('SET', 'second', '2')
    relay.delayMs = 500
    expect(await codeOf(up.command('GET', 'first'))).toBe('redis_timeout')
    relay.delayMs = 0
    const replies: unknown[] = []
    await until(async () => {
      await up.command('GET', 'second').then(
        (reply) => replies.push(reply),
        () => {},
      )
      return replies.length > 0
    }, 'a reply in time')
    expect(replies).toEqual([Buffer.from('2')])
  })

  it('does not send a script in full when word that it is unknown comes after the deadline', async () => {
    const fresh = opened(await startRedis())
    const relay = opened(await startRelay(fresh.port))
    const up = await linkUp(relay.url, soon)
    relay.delayMs = 500
    const heard: unknown[] = []
    const run = up.script('return redis.call("incr", KEYS[1])')
    expect(await codeOf(run(['n'], [], (reply) => void heard.push(reply)))).toBe('redis_timeout')
    relay.delayMs = 0
    await until(() => heard.length > 0, 'that word')
    expect(heard).toEqual([expect.objectContaining({ code: 'redis_error', refusal: 'NOSCRIPT' })])
    await until(async () => (await codeOf(up.command('SET', 'passed', '1'))) === 'none', 'a reply in time')
    expect(await fresh.ask('GET', 'n')).toBe('')
  })

  it('tells who asks for it what a script answers after the deadline, or why it does not', async () => {
    const relay = opened(await startRelay(redis.port))
    const up = await linkUp(relay.url, soon)
    const run = up.script('return ARGV[1]')
    await run([], ['known'])
    const heard: unknown[] = []
    const hear = (reply: unknown): void => void heard.push(reply)
    relay.stall()
    expect(await codeOf(run([], ['late'], hear))).toBe('redis_timeout')
    expect(heard).toEqual([])
    relay.release()
    await until(() => heard.length > 0, 'the late reply')
    expect(await up.whenUp(10_000)).toBe(true)
    relay.stall()
    expect(await codeOf(run([], ['cut'], hear))).toBe('redis_timeout')
    relay.cut('reset')
    await until(() => heard.length > 1, 'word that none comes')
    expect(await codeOf(run([], ['down'], hear))).toBe('redis_down')
    expect(heard).toEqual([Buffer.from('late'), expect.objectContaining({ code: 'redis_lost' })])
  })

  it('stays down where the database of the URL does not exist', async () => {
    const { lines, log } = listen()
    const down = link(`${redis.url}/99`, {}, log)
    await until(() => lines.length > 0, 'a log line')
    expect(down.isUp).toBe(false)
    expect(lines[0]?.fields).toMatchObject({ reason: expect.stringContaining('out of range') })
  })

  it('stays down while Redis is slower than the deadline', async () => {
    const relay = opened(await startRelay(redis.port))
    const { lines, log } = listen()
    const up = await linkUp(relay.url, soon, log)
    relay.delayMs = 500
    for (let i = 0; i < 2; i++) expect(await codeOf(up.command('PING'))).toBe('redis_timeout')
    expect(up.isUp).toBe(false)
    expect(await up.whenUp(800)).toBe(false)
    expect(lines).toHaveLength(2)
  })

  it('settles a thousand commands of a hung Redis under one timer, and runs none for them afterwards', async () => {
    const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
    let isSilent = false
    const server = opened(await startScriptedRedis(() => (isSilent ? null : '+OK\r\n')))
    const up = await linkUp(server.url, soon)
    const before = timers()
    isSilent = true
    const commands = Array.from({ length: 1000 }, () => codeOf(up.command('GET', 'k')))
    // The other one watches the socket for silence.
    expect(timers() - before).toBeLessThanOrEqual(2)
    expect(new Set(await Promise.all(commands))).toEqual(new Set(['redis_timeout']))
    await until(() => timers() <= before + 1, 'the timer to be gone')
  })
})

describeWithRedis('a link whose Redis refuses', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())

  it.each([
    ['LOADING Redis is loading the dataset in memory', 'LOADING'],
    ["READONLY You can't write against a read only replica.", 'READONLY'],
    ['CLUSTERDOWN The cluster is down', 'CLUSTERDOWN'],
    ["OOM command not allowed when used memory > 'maxmemory'.", 'OOM'],
    ['BUSY Redis is busy running a script.', 'BUSY'],
    ['ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed', 'ERR'],
  ])('opens on %s', async (refusal, word) => {
    let isWell = true
    const server = opened(await startScriptedRedis(() => (isWell ? '+OK\r\n' : `-${refusal}\r\n`)))
    const up = await linkUp(server.url)
    isWell = false
    const errors = await Promise.allSettled(Array.from({ length: 20 }, () => up.command('SET', 'k', 'v')))
    expect(errors[0]).toMatchObject({ reason: { code: 'redis_error', refusal: word } })
    await whenDown(up)
    isWell = true
    expect(await up.whenUp(10_000)).toBe(true)
  })

  it.each(['BUSYKEY Target key name already exists.', 'BUSYGROUP exists', 'WRONGTYPE wrong kind', 'ERR OOM or not'])(
    'does not open on %s, which is about the data',
    async (refusal) => {
      let isWell = true
      const server = opened(
        await startScriptedRedis(([name]) => (isWell || name === 'ping' ? '+OK\r\n' : `-${refusal}\r\n`)),
      )
      const up = await linkUp(server.url)
      isWell = false
      for (let i = 0; i < 40; i++) expect(await codeOf(up.command('SET', 'k', 'v'))).toBe('redis_error')
      expect(up.isUp).toBe(true)
    },
  )

  it('stays down on a full server when its probes write, reads or not', async () => {
    const up = await linkUp(redis.url, { probeKey: 'test:probe' })
    await redis.ask('CONFIG', 'SET', 'maxmemory', '1')
    const codes = await Promise.all(Array.from({ length: 20 }, () => codeOf(up.command('SET', 'k', 'v'))))
    expect(new Set(codes)).toEqual(new Set(['redis_error']))
    await whenDown(up)
    expect(await up.whenUp(600)).toBe(false)
    await redis.ask('CONFIG', 'SET', 'maxmemory', '0')
    expect(await up.whenUp(3000)).toBe(true)
  })

  it('leaves a server that has become a replica, and finds the new master behind the same address', async () => {
    const next = opened(await startRedis())
    const old = opened(await startRedis())
    const relay = opened(await startRelay(old.port))
    const { lines, log } = listen()
    const up = await linkUp(relay.url, { probeKey: 'test:probe' }, log)
    await old.ask('REPLICAOF', '127.0.0.1', String(next.port))
    relay.target = next.port
    await expect(up.command('SET', 'k', 'v')).rejects.toMatchObject({ refusal: 'READONLY' })
    await whenDown(up)
    expect(await up.whenUp(3000)).toBe(true)
    await up.command('SET', 'k', 'v')
    expect(await next.ask('GET', 'k')).toBe('v')
    expect(lines[1]?.fields).toMatchObject({ reason: expect.stringContaining('READONLY') })
  })

  it('does not hammer a server that stays a replica with connections', async () => {
    const replica = opened(await startRedis())
    await replica.ask('REPLICAOF', '127.0.0.1', String(redis.port))
    const relay = opened(await startRelay(replica.port))
    const down = link(relay.url, { probeKey: 'test:probe' })
    expect(await down.whenUp(1500)).toBe(false)
    expect(relay.accepted).toBeLessThanOrEqual(4)
  })

  it('survives a peer that does not speak the protocol', async () => {
    const server = opened(await startScriptedRedis(() => 'HTTP/1.1 400 Bad Request\r\n\r\n'))
    expect(await link(server.url).whenUp(300)).toBe(false)
    expect(server.seen.length).toBeGreaterThan(0)
  })
})
