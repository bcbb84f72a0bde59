// The users of the bench over real sockets: what they ask for, and that they read answers as they come.

import { afterEach, expect, it } from 'vitest'
import { KINDS, runUsers } from '../../bench/users.ts'
import { type Origin, type Script, startOrigin } from '../support/origin.ts'

let origin: Origin | null = null

afterEach(() => origin?.close())

const everywhere = (port: number) =>
  Object.fromEntries(KINDS.map((kind) => [kind, port])) as Record<(typeof KINDS)[number], number>

/** Answers of users until the origin has seen so many requests. */
async function askedUntil(requests: number, script: Script) {
  const started = await startOrigin()
  origin = started
  let enough = (): void => {}
  const reached = new Promise<void>((resolve) => (enough = resolve))
  started.answer((request, response, count) => {
    if (count >= requests) enough()
    script(request, response, count)
  })
  const asked = await runUsers(3, reached, everywhere(started.port))
  return { asked, seen: started.seen }
}

it.each<[string, Script]>([
  ['with a length', (_request, response) => response.setHeader('X-Cache', 'HIT').end('{"items": []}')],
  [
    'in chunks',
    (_request, response) => {
      response.setHeader('X-Cache', 'HIT').write('{"items": ')
      response.end('[]}')
    },
  ],
  [
    'and closed',
    (_request, response) => response.setHeader('X-Cache', 'HIT').setHeader('Connection', 'close').end('{}'),
  ],
])('reads answers %s', async (_how, script) => {
  const { asked } = await askedUntil(60, script)
  expect(asked.length).toBeGreaterThanOrEqual(57)
  for (const { cache, isError } of asked) expect({ cache, isError }).toEqual({ cache: 'HIT', isError: false })
})

it('asks for all kinds, the AI by POST', async () => {
  const { asked, seen } = await askedUntil(300, (_request, response) => response.end('{}'))
  expect(new Set(asked.map(({ kind }) => kind))).toEqual(new Set(KINDS))
  for (const { method, url } of seen) expect(method).toBe(url.startsWith('/api/v1/ai/') ? 'POST' : 'GET')
})

it('counts errors, broken connections among them', async () => {
  const { asked } = await askedUntil(40, (_request, response, count) => {
    if (count % 2 === 0) response.destroy()
    else response.writeHead(503).end()
  })
  expect(asked.length).toBeGreaterThan(0)
  expect(asked.every(({ isError }) => isError)).toBe(true)
})
