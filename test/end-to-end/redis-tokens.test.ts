// Budgets in tokens that three instances share: whatever calls turn out to use, the sum is charged once, everywhere.

import type { ServerResponse } from 'node:http'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { converse, request } from '../support/client.ts'
import { type TestGateway, until } from '../support/gateway.ts'
import { startInstances } from '../support/instances.ts'
import type { Script } from '../support/origin.ts'
import { type RedisServer, describeWithRedis, startRedis, startRelay } from '../support/redis.ts'

const LIMIT = 10_000
const RESERVE = 500

/** Answers `/<tokens>` having used so many, and `/stream` with events until somebody goes. */
const service: Script = ({ url = '' }, response) => {
  if (url === '/stream') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    for (let i = 0; i < 3000; i++) response.write(`data: {"choices":[{"delta":{"content":"w${i}"}}]}\n\n`)
    return
  }
  const tokens = Number(url.slice(1))
  const usage = { prompt_tokens: 10, completion_tokens: tokens - 10 }
  response.writeHead(200, { 'Content-Type': 'application/json' })
  setImmediate(() => response.end(JSON.stringify({ usage })))
}

describeWithRedis('a budget in tokens of three instances', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())

  async function start(policy: string) {
    const { all, origin } = await startInstances(3, redis.url, {
      routes: [`{path: /*, limits: [${policy}]}`],
      more: `limits: {${policy}: {unit: tokens, limit: ${LIMIT}, window: 1m, reserve: ${RESERVE}}}`,
      script: service,
    })
    const used = async (gateway = all[0] as TestGateway): Promise<number> => {
      const { remaining } = await gateway.gateway.limitStanding(policy, { ip: '127.0.0.1' })
      return LIMIT - remaining
    }
    const settles = async (tokens: number): Promise<void> => {
      let seen = -1
      await until(() => {
        void used().then((now) => (seen = now))
        return seen === tokens
      }, `${tokens} tokens used`)
    }
    let turn = 0
    const ask = async (path: string) => request((all[turn++ % all.length] as TestGateway).url + path)
    return { all, origin, ask, used, settles }
  }

  it('is charged what all calls used, to the token, wherever they went', async () => {
    const { all, ask, used, settles } = await start('exact')
    const calls = [50, 2000, 700, 11, 1234, 500, 333, 90]
    for (const tokens of calls) expect((await ask(`/${tokens}`)).status).toBe(200)
    const sum = calls.reduce((total, tokens) => total + tokens, 0)
    await settles(sum)
    expect(await Promise.all(all.map(used))).toEqual([sum, sum, sum])
  })

  it('admits no more than the limit and what is in flight beyond its reservation', async () => {
    const { ask } = await start('crowd')
    const workers = 12
    let spent = 0
    let refused = 0
    let number = 0
    const work = async (): Promise<void> => {
      while (refused < workers) {
        const tokens = 50 + ((number++ * 379) % 1951)
        const { status } = await ask(`/${tokens}`)
        if (status === 200) spent += tokens
        else refused++
      }
    }
    await Promise.all(Array.from({ length: workers }, work))
    expect(spent).toBeLessThanOrEqual(LIMIT + workers * (2000 - RESERVE))
    expect(spent).toBeGreaterThan(LIMIT - RESERVE)
    const { status, headers } = await ask('/50')
    expect(status).toBe(429)
    // A debt is waited for, though nobody is kept out for longer than a window and its coarseness.
    expect(Number(headers['retry-after'])).toBeGreaterThan(0)
    expect(Number(headers['retry-after'])).toBeLessThanOrEqual(73)
    expect(headers['x-ratelimit-remaining-tokens']).toBe('0')
  })

  it('is charged for what a client has had that hangs up, in all of them', async () => {
    const { all, origin, used } = await start('gone')
    const client = await converse((all[1] as TestGateway).port, 'GET /stream HTTP/1.1\r\nHost: x\r\n\r\n')
    await client.expect('w2999')
    client.reset()
    await until(() => origin.aborted === 1, 'the end of the call')
    let tokens = 0
    await until(() => {
      void used(all[2]).then((now) => (tokens = now))
      return tokens > RESERVE
    }, 'the call to be charged')
    expect(tokens).toBeGreaterThanOrEqual(3000)
    expect(tokens).toBeLessThan(3100)
  })

  it('is charged for what a call has used while Redis was away, once that is back', async () => {
    const relay = await startRelay(redis.port)
    onTestFinished(() => relay.close())
    const held: ServerResponse[] = []
    const { all, add } = await startInstances(1, redis.url, {
      routes: ['{path: /*, limits: [away]}'],
      more: `limits: {away: {unit: tokens, limit: ${LIMIT}, window: 1m, reserve: ${RESERVE}}}`,
      script: (_request, response) => held.push(response),
      redis: 'deadline: 25ms',
    })
    const other = all[0] as TestGateway
    const cut = await add(relay.url)
    const used = async (): Promise<number> =>
      LIMIT - (await other.gateway.limitStanding('away', { ip: '127.0.0.1' })).remaining
    const isUsed = (): boolean => /^weirgate_limit_redis_used 1$/m.test(cut.gateway.metrics())
    await until(isUsed, 'Redis to be used')
    const asked = request(`${cut.url}/`)
    await until(() => held.length === 1, 'the call')
    expect(await used()).toBe(RESERVE)
    relay.stall()
    await until(() => !isUsed(), 'the loss to be known')
    const usage = { prompt_tokens: 10, completion_tokens: 1990 }
    held[0]?.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ usage }))
    expect((await asked).status).toBe(200)
    expect(await used()).toBe(RESERVE)
    relay.release()
    let tokens = 0
    await until(() => {
      void used().then((now) => (tokens = now))
      return tokens > RESERVE
    }, 'the debt to be told')
    expect(tokens).toBe(2000)
  })
})
