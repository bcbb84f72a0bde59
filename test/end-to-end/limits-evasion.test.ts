// A client that is over its limit, and tries to count as somebody else at an upstream that takes it for the same.

import { expect, it } from 'vitest'
import { startEdge } from '../support/edge.ts'
import { exchange } from '../support/exchange.ts'

const ask = (...fields: readonly string[]): string =>
  `${['GET /x HTTP/1.1', 'Connection: close', ...fields].join('\r\n')}\r\n\r\n`
const KEY = 'X-Api-Key: mine-0123456789abc'
const USERS = 'identity: {user: [{header: x-api-key, keys: {me: mine-0123456789abc}}]}\n'

it.each<[string, string, readonly (readonly string[])[], number]>([
  ['another port of a host', 'key: host', [['Host: a.test'], ['Host: a.test:81'], ['Host: A.test.:82']], 429],
  [
    'another line of a key',
    'key: header:x-api-key',
    ['1', '2', '3'].map((n) => ['Host: a', KEY, `X-Api-Key: ${n}`]),
    429,
  ],
  [
    'another line of a key, where those without are not limited',
    'key: header:x-api-key, onMissing: skip',
    ['1', '2', '3'].map((n) => ['Host: a', KEY, `X-Api-Key: ${n}`]),
    429,
  ],
  [
    'a second cookie, where those without are not limited',
    'key: cookie:sid, onMissing: skip',
    ['1', '2', '3'].map((n) => ['Host: a', `Cookie: sid=me; sid=${n}`]),
    429,
  ],
  [
    'another line of what names a user',
    'key: user, onMissing: skip',
    [
      ['Host: a', KEY],
      ['Host: a', KEY, 'X-Api-Key: x'],
    ],
    400,
  ],
])('is not let through by %s', async (_name, limit, requests, status) => {
  const { gateway, origin } = await startEdge({
    routes: ['{path: /*, limits: [few]}'],
    more: `${limit.includes('user') ? USERS : ''}limits: {few: {limit: 1, window: 1h, ${limit}}}`,
  })
  const statuses: number[] = []
  for (const fields of requests) statuses.push((await exchange(gateway.port, ask(...fields))).status)
  expect(statuses).toEqual(statuses.map((_, i) => (i === 0 ? 200 : status)))
  expect(origin.seen).toHaveLength(1)
})
