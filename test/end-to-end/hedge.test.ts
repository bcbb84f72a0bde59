// A second target is asked where the first is late: who answers, what becomes of the other, and when nobody else is asked.

import { describe, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { settled } from '../support/edge.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { type Owing, owing } from '../support/owing.ts'

const closing = closeAfterEach()

interface Pair extends Pick<Owing, 'owed' | 'owes'> {
  readonly gateway: TestGateway
  readonly first: Origin
  readonly second: Origin
}

/** The first target answers nothing by itself, the second at once. All requests go to the first, as long as it is well. */
async function startPair(upstream = 'hedge: {after: 20ms, percent: 100}', route = '', more = ''): Promise<Pair> {
  const { script, owed, owes } = owing()
  const first = closing(await startOrigin(script))
  const second = closing(await startOrigin())
  const targets = `[{url: "${first.url}", weight: 1000}, {url: "${second.url}", weight: 1}]`
  const late = closing(await startOrigin(() => {}))
  const prompt = closing(await startOrigin())
  const gateway = closing(
    await startGateway(`
upstreams:
  app: {targets: ${targets}, ${upstream}}
  witness: {targets: [${late.url}, ${prompt.url}], hedge: {after: 20ms, percent: 100}}
defaults: {upstream: app}
${more}
routes: [{path: /*, ${route}}, {path: /witness, upstream: witness}]
`),
  )
  return { gateway, first, second, owed, owes }
}

const rowOf = ({ gateway }: Pair) => gateway.gateway.upstreams().find(({ upstream }) => upstream === 'app')

/** A request that begins now is sent twice before this resolves: whatever was to happen to earlier ones has. */
async function passed({ gateway }: Pair): Promise<void> {
  const answers = await Promise.all([1, 2].map(() => request(`${gateway.url}/witness`)))
  expect(answers.map(({ status }) => status)).toEqual([200, 200])
  // Both where the machine is slow.
  expect(answers.map(({ headers }) => headers['x-weirgate-attempts'])).toContain('2')
}

describe('where the first target is late', () => {
  it.each(['GET', 'HEAD'])('the second one is asked by %s, answers, and the first is broken off', async (method) => {
    const pair = await startPair()
    const answer = await request(`${pair.gateway.url}/x`, { method })
    expect([answer.status, answer.text]).toEqual([200, method === 'GET' ? 'answer 1' : ''])
    expect(answer.headers['x-weirgate-attempts']).toBe('2')
    await until(() => pair.first.aborted === 1 && pair.first.openSockets === 0, 'the end of the first')
    expect(pair.second.seen[0]?.url).toBe('/x')
    expect(rowOf(pair)).toMatchObject({ hedges: 1, hedges_won: 1, retries: 0 })
    await settled(pair)
  })

  it('a QUERY is sent again with its body, where that is held', async () => {
    const cache = 'methods: [QUERY], cache: {ttl: 1h, scope: public, key: {body: raw}}'
    const pair = await startPair(undefined, cache)
    const answer = await request(`${pair.gateway.url}/x`, { method: 'QUERY', body: 'select' })
    expect(answer.text).toBe('answer 1')
    const bodies = await Promise.all([pair.first, pair.second].flatMap(({ seen }) => seen.map(({ body }) => body)))
    expect(bodies.map(String)).toEqual(['select', 'select'])
  })

  it('a budget in tokens is charged for both', async () => {
    const route = 'methods: [QUERY], limits: [tpm], cache: {ttl: 1h, scope: public, key: {body: raw}}'
    const more = 'limits: {tpm: {unit: tokens, limit: 10000, window: 1h}}'
    const pair = await startPair(undefined, route, more)
    const usage = { choices: [], usage: { prompt_tokens: 10, completion_tokens: 20 } }
    pair.second.answer((_incoming, response) => {
      response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(usage))
    })
    await request(`${pair.gateway.url}/x`, { method: 'QUERY', body: 'x'.repeat(400) })
    await settled(pair)
    const { remaining } = await pair.gateway.gateway.limitStanding('tpm', { ip: '127.0.0.1' })
    expect(10_000 - remaining).toBe(10 + 20 + 100)
  })

  it('that one is the answer all the same, if it comes first', async () => {
    const pair = await startPair()
    const silent = owing()
    pair.second.answer(silent.script)
    const answer = request(`${pair.gateway.url}/x`)
    await silent.owes(1)
    pair.owed[0]?.end('at last')
    expect((await answer).text).toBe('at last')
    expect((await answer).headers['x-weirgate-attempts']).toBe('2')
    await until(() => pair.second.aborted === 1, 'the end of the second')
    expect(rowOf(pair)).toMatchObject({ hedges: 1, hedges_won: 0 })
    await settled(pair)
  })

  it('that one is the answer where the second one fails', async () => {
    const pair = await startPair('retries: 0, hedge: {after: 20ms, percent: 100}')
    pair.second.answer((_incoming, response) => void response.writeHead(503).end())
    const answer = request(`${pair.gateway.url}/x`)
    await until(() => pair.second.seen.length === 1, 'the second attempt')
    await passed(pair)
    pair.owed[0]?.end('at last')
    expect((await answer).text).toBe('at last')
    await settled(pair)
  })

  it('and then breaks off, the second one answers', async () => {
    const pair = await startPair('retries: 0, hedge: {after: 20ms, percent: 100}')
    const silent = owing()
    pair.second.answer(silent.script)
    const answer = request(`${pair.gateway.url}/x`)
    const attempt = await silent.owes(1)
    pair.owed[0]?.destroy()
    await until(() => pair.first.aborted === 1, 'the end of the first')
    attempt.end('second')
    expect((await answer).text).toBe('second')
    await settled(pair)
  })

  it('and both fail, the client hears of it once', async () => {
    const pair = await startPair('retries: 0, hedge: {after: 20ms, percent: 100}')
    pair.second.answer((_incoming, response) => void response.destroy())
    const answer = request(`${pair.gateway.url}/x`)
    await until(() => pair.second.aborted === 1, 'the end of the second')
    pair.owed[0]?.destroy()
    expect((await answer).status).toBe(502)
    expect((await answer).headers['x-weirgate-attempts']).toBe('2')
    await settled(pair)
  })

  it('and the client goes, both are broken off', async () => {
    const pair = await startPair()
    pair.second.answer(() => {})
    const gone = new AbortController()
    const asked = fetch(`${pair.gateway.url}/x`, { signal: gone.signal }).catch(() => 'gone')
    await until(() => pair.second.seen.length === 1, 'the second attempt')
    gone.abort()
    expect(await asked).toBe('gone')
    await until(() => pair.first.aborted === 1 && pair.second.aborted === 1, 'the end of both')
    await settled(pair)
  })

  it('what the second answers is stored', async () => {
    const pair = await startPair(undefined, 'cache: {ttl: 1h}')
    expect((await request(`${pair.gateway.url}/x`)).text).toBe('answer 1')
    const again = await request(`${pair.gateway.url}/x`)
    expect([again.text, again.headers['x-cache'], again.headers['x-weirgate-attempts']]).toEqual([
      'answer 1',
      'HIT',
      undefined,
    ])
  })

  it('both count at the upstream, and leave their places', async () => {
    const pair = await startPair('hedge: {after: 20ms, percent: 100}, concurrency: {max: 2, queue: 0}')
    for (let i = 1; i <= 3; i++) expect((await request(`${pair.gateway.url}/x`)).text).toBe(`answer ${i}`)
    expect(rowOf(pair)).toMatchObject({ hedges: 3, refused: 0 })
    await settled(pair)
  })
})

describe('nobody else is asked', () => {
  it('for what may change something', async () => {
    const pair = await startPair()
    const answer = request(`${pair.gateway.url}/x`, { method: 'PUT', body: 'x' })
    const late = await pair.owes(1)
    await passed(pair)
    late.end('put')
    expect((await answer).text).toBe('put')
    expect(rowOf(pair)).toMatchObject({ hedges: 0 })
  })

  it('where the upstream has as many requests as it may have', async () => {
    const pair = await startPair('hedge: {after: 20ms, percent: 100}, concurrency: {max: 1}')
    const answer = request(`${pair.gateway.url}/x`)
    const late = await pair.owes(1)
    await passed(pair)
    late.end('late')
    expect((await answer).text).toBe('late')
    expect(rowOf(pair)).toMatchObject({ hedges: 0 })
  })

  it('more often than so many times in a hundred', async () => {
    const pair = await startPair('hedge: {after: 20ms, percent: 1}')
    expect((await request(`${pair.gateway.url}/x`)).text).toBe('answer 1')
    const answer = request(`${pair.gateway.url}/x`)
    const late = await pair.owes(2)
    await passed(pair)
    late.end('late')
    expect((await answer).text).toBe('late')
    expect(rowOf(pair)).toMatchObject({ hedges: 1 })
  })

  it('where the first is in time', async () => {
    const pair = await startPair('hedge: {after: 1h, percent: 100}')
    pair.first.answer((_incoming, response) => response.end('in time'))
    const { text, headers } = await request(`${pair.gateway.url}/x`)
    expect([text, headers['x-weirgate-attempts']]).toEqual(['in time', undefined])
  })

  it('before it is known how long requests take', async () => {
    const pair = await startPair('hedge: {after: auto, percent: 100}')
    const answer = request(`${pair.gateway.url}/x`)
    const late = await pair.owes(1)
    await passed(pair)
    late.end('late')
    expect((await answer).text).toBe('late')
    expect(rowOf(pair)).toMatchObject({ hedges: 0 })
  })
})
