// Misses that were nearly hits, as operators are told of them, and what clients have said, which nobody is told.

import { expect, it, onTestFinished, vi } from 'vitest'
import type { Stats } from '../../src/core/control.ts'
import { request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'

const CACHE = 'ttl: 1h, scope: public'
const MISSES = 24
const uuid = (i: number): string => `123e4567-e89b-42d3-a456-${String(i).padStart(12, '0')}`

async function start(routes: readonly string[]) {
  vi.useFakeTimers({ toFake: ['Date'] })
  onTestFinished(() => void vi.useRealTimers())
  const edge = await startEdge({ routes, script: (_request, response) => void response.end('fine') })
  const { gateway } = edge
  return {
    ...edge,
    /** The X-Cache of the answer, a tenth of a second after the one before. */
    send: async (path: string, body?: unknown): Promise<string> => {
      vi.setSystemTime(Date.now() + 100)
      const how = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
      return String((await request(gateway.url + path, body === undefined ? {} : how)).headers['x-cache'])
    },
    stats: async () => (await (await fetch(`${gateway.adminUrl}/api/stats`)).json()) as Stats,
    scrape: async () => (await fetch(`${gateway.adminUrl}/metrics`)).text(),
  }
}

it('names the field by which bodies differ, and with the advice taken they are hits', async () => {
  const route = (key: string) => `{path: /decks, methods: [POST], cache: {${CACHE}, key: {body: ${key}}}}`
  const edge = await start([route('canonical')])
  const { gateway, origin } = edge
  const send = (i: number) => edge.send('/decks', { prompt: 'tides', request_id: uuid(i) })
  for (let i = 0; i < MISSES; i++) expect(await send(i)).toBe('MISS')
  expect((await edge.stats()).near_misses).toEqual({
    'POST /decks': {
      misses: MISSES,
      differs: [
        {
          field: '/request_id',
          percent_of_misses: 96,
          advice: '/request_id differs in 96 % of misses: if no answer depends on it, add it to key.body.ignore',
        },
      ],
    },
  })
  gateway.rewrite(`
listen: {address: 127.0.0.1:0}
admin: {listen: 127.0.0.1:0}
upstreams: {origin: {targets: [${origin.url}]}}
defaults: {upstream: origin}
routes: [${route('{ignore: [request_id]}')}]
`)
  expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
  expect((await edge.stats()).near_misses).toEqual({})
  expect([await send(100), await send(101), await send(102)]).toEqual(['MISS', 'HIT', 'HIT'])
})

it('names the parameters by which URLs differ, and counts hits for nothing', async () => {
  const { send, stats } = await start(['{path: /*, cache: {ttl: 1h}}'])
  for (let i = 0; i < MISSES; i++) {
    expect(await send(`/page?a=1&utm_source=s${i}&utm_medium=m`)).toBe('MISS')
    expect(await send(`/page?a=1&utm_source=s${i}&utm_medium=m`)).toBe('HIT')
  }
  expect((await stats()).near_misses['/*']).toMatchObject({
    misses: MISSES,
    differs: [{ field: 'utm_*', percent_of_misses: 96, advice: expect.stringContaining('key.query.ignore') }],
  })
})

it('is not told of users by one another', async () => {
  const route = '{path: /mine, methods: [POST], cache: {ttl: 1h, scope: user, key: {body: canonical}}}'
  const { gateway, stats } = await start([route])
  for (let i = 0; i < MISSES; i++) {
    vi.setSystemTime(Date.now() + 100)
    const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${i}` }
    await request(`${gateway.url}/mine`, { method: 'POST', headers, body: `{"request_id": "${uuid(i)}"}` })
  }
  expect((await stats()).near_misses).toEqual({})
})

it('what clients write is nowhere to be read', async () => {
  const { send, stats, scrape, gateway } = await start([
    `{path: /decks, methods: [POST], cache: {${CACHE}, key: {body: canonical}}}`,
    '{path: /*, cache: {ttl: 1h}}',
  ])
  for (let i = 0; i < MISSES; i++) {
    await send('/decks', {
      prompt: `hush${i}`,
      style: 'plain',
      notes: { [`hush hush ${i}`]: 'hush', 'hush@hush.test': 1 },
    })
    await send(`/page?word=hush${i}&hush%20hush${i}`)
  }
  await gateway.requestLines(2 * MISSES)
  const told = await stats()
  expect(told.near_misses['POST /decks']?.differs.map(({ field }) => field)).toEqual(['/prompt', '/notes'])
  const all = [told, await scrape(), gateway.log]
  const said = JSON.stringify(all, (name, value: unknown) => (name === 'path' ? undefined : value))
  expect(said).toContain('/notes')
  expect(said).not.toContain('hush')
})
