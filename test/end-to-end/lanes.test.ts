// One behaviour, two lanes: what is well spelt and may be answered from memory, with everything that the route table can
// put between a client and that. The same goes to a gateway with both lanes and to one with the full lane alone, and
// nothing may differ but the time it takes. How requests may be spelt is lanes-syntax.test.ts, what else happens on a
// connection lanes-connections.test.ts, other configurations lanes-options.test.ts, chance lanes-mutations.test.ts.

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { differences, fastAnswersTo } from '../support/lanes/compare.ts'
import { STORED } from '../support/lanes/stored.ts'
import { BETWEEN } from '../support/lanes/between.ts'
import { type Pair, SETTLED, startPair } from '../support/lanes/pair.ts'
import { ask, bare, get, head } from '../support/lanes/rows.ts'
import { ANN, originOfAll, yamlOfAll } from '../support/lanes/table.ts'

vi.mock('node:zlib', async (original) => (await import('../support/lanes/threads.ts')).codeAtOnce(await original()))

let pair: Pair
beforeAll(async () => {
  pair = await startPair({ yaml: (originUrl) => yamlOfAll(originUrl), script: originOfAll })
})
afterAll(() => pair.close())

describe('the lanes cannot be told apart by', () => {
  it.each(Object.entries({ ...STORED, ...BETWEEN }))('%s', async (_what, rows) => {
    expect(await differences(pair, rows)).toBe('')
  })
})

describe('the fast path answers', () => {
  it.each([
    ['GET', get('/plain')],
    ['HEAD', head('/plain')],
    ['a query', get('/unsaid?a=1&b=2')],
    ['an escape in its normal form', get('/things/a%20b')],
    ['a client that keeps the connection', get('/plain', 'Connection: keep-alive')],
    [
      'a browser',
      get('/plain', 'User-Agent: Mozilla/5.0', 'Accept: */*', 'Accept-Language: de', 'Accept-Encoding: br'),
    ],
    ['bytes beyond ASCII in a value', get('/plain', 'X: gr\xfc\xdfe')],
    ['a coded form', get('/json', 'Accept-Encoding: br')],
    ['a variant', get('/language', 'Accept-Language: de')],
    ['a 304', get('/etag', 'If-None-Match: "one"')],
    ['a part', get('/etag', 'Range: bytes=0-1')],
    ['a 416', get('/etag', 'Range: bytes=900-')],
    ['100 kB', get('/large')],
    ['5 MB', get('/huge')],
    ['a 404', get('/missing')],
    ['a 301', get('/moved')],
    ['a 204', get('/nothing')],
    ['an empty body', get('/empty')],
    ['another host', bare('GET /plain HTTP/1.1', 'Host: api.gateway.test')],
    ['a parameter', get('/things/1')],
    ['within a limit', get('/burst/plain', 'X-Client: fast')],
    ['over a limit', get('/dear/plain', 'X-Client: fast')],
    ['what a limit only watches', get('/watched/plain', 'X-Client: fast')],
    ['what counts as a miss only', get('/misses/plain', 'X-Client: fast')],
    ['a user', get('/authed/plain', `X-Api-Key: ${ANN}`)],
    ['a user’s own', get('/user/plain', 'Cookie: a=1')],
    ['nobody, where somebody is asked for', get('/authed/plain')],
    ['a client that turns nothing down', get('/honor/plain', 'Cache-Control: max-age=100')],
    ['a method that is not GET', ask('HEAD', '/etag', 'If-None-Match: "x"')],
  ])('%s', async (_what, request) => {
    // Twice: a coded form is made when it has been asked for.
    await pair.play({ steps: [request, SETTLED, request], last: 'apart' })
    expect(await fastAnswersTo(pair, { steps: [request, SETTLED, request], last: 'apart' })).toBe(3)
  })

  it('what comes behind a request that it leaves to the full lane', async () => {
    const steps = [get('/no-store'), SETTLED, get('/plain'), SETTLED, ask('POST', '/exact'), SETTLED, get('/plain')]
    expect(await fastAnswersTo(pair, { steps, last: 'apart' })).toBe(3)
  })

  it('the last request of a connection', async () => {
    expect(await fastAnswersTo(pair, { steps: [get('/plain', 'Connection: close')], last: 'apart' })).toBe(1)
  })
})
