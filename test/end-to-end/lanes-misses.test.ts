// One behaviour, two lanes (see lanes.test.ts): what has to be asked for at the origin, and what happens on the connection
// meanwhile. The origin answers when it is told to.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { ServerResponse } from 'node:http'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { request } from '../support/client.ts'
import { differences } from '../support/lanes/compare.ts'
import { difference } from '../support/lanes/observed.ts'
import {
  CLOSED,
  FINISHED,
  MARKED,
  type Pair,
  RESET,
  SETTLED,
  act,
  logged,
  pass,
  startPair,
} from '../support/lanes/pair.ts'
import { HOST, type Row, bare, get, head, row } from '../support/lanes/rows.ts'
import type { Script } from '../support/origin.ts'

vi.mock('node:zlib', async (original) => (await import('../support/lanes/threads.ts')).codeAtOnce(await original()))

const LENGTH = 'Content-Length'

/** By its first segment: what it answers at once, and what it does when it is told to go on. */
const ANSWERS: Readonly<Record<string, (response: ServerResponse) => () => void>> = {
  whole: (response) => () => response.end('whole'),
  empty: (response) => () => response.writeHead(200, { [LENGTH]: 0 }).end(),
  none: (response) => () => response.writeHead(204).end(),
  absent: (response) => () => response.writeHead(404).end('not here'),
  sick: (response) => () => response.writeHead(503, { 'Retry-After': 7 }).end('later'),
  odd: (response) => () =>
    response.writeHead(299, 'Odd', ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'X', '\xfc']).end('odd'),
  dies: (response) => () => response.socket?.destroy(),
  hinted: (response) => {
    response.writeInformation(103, ['Link', '</a>'])
    return () => {
      response.writeInformation(103, ['Link', '</b>'])
      response.end('hinted')
    }
  },
  parts: (response) => {
    response.write('one ')
    return () => response.end('two')
  },
  counted: (response) => {
    response.writeHead(200, { [LENGTH]: 8 }).write('one ')
    return () => response.end('two ')
  },
  breaks: (response) => {
    response.writeHead(200, { [LENGTH]: 8 }).write('one ')
    return () => response.socket?.destroy()
  },
}

function waitingOrigin(): Script {
  const waiting: (() => void)[] = []
  return ({ url = '' }, response) => {
    if (url === '/marker') {
      response.writeHead(200, { 'Cache-Control': 'max-age=60' }).end(MARKED)
      return
    }
    const answer = ANSWERS[url.split('/').findLast((part) => part in ANSWERS) ?? '']
    response.setHeader('Cache-Control', 'max-age=60')
    if (answer !== undefined) {
      waiting.push(answer(response))
      return
    }
    if (url === '/go') for (const goOn of waiting.splice(0)) goOn()
    response.end(url)
  }
}

const yaml = (originUrl: string, listen: string): string => `
listen: {address: 127.0.0.1:0, connectionsPerAddress: 10000${listen && `, ${listen}`}}
admin: {listen: 127.0.0.1:0}
upstreams: {origin: {targets: [${originUrl}], retries: 0}}
defaults: {upstream: origin}
limits: {five: {limit: 5, window: 1h, key: "header:x-client", count: miss}}
routes:
  - {path: /uncached/*}
  - {path: /limited/*, limits: [five], cache: {}}
  - {path: /*, cache: {}}
`

async function start(listen = ''): Promise<Pair> {
  const pair = await startPair({ yaml: (originUrl) => yaml(originUrl, listen), script: waitingOrigin })
  onTestFinished(() => pair.close())
  return pair
}

const GO = act((_gateway, originUrl) => request(`${originUrl}/go`))
const HIT = get('/marker')

/** An answer of this kind, to requests that are told apart by `name`. */
const waysThrough = (kind: string): readonly Row[] =>
  ['', '/uncached', '/limited'].flatMap((route) => {
    let count = 0
    const miss = (...fields: readonly string[]) => get(`${route}/${++count}/${kind}`, ...fields)
    const again = get(`${route}/${count}/${kind}`)
    return [
      row(`${route} alone`, miss(), GO),
      row(`${route} after a hit, before another`, HIT, SETTLED, miss(), GO, SETTLED, HIT),
      row(`${route} twice`, miss(), GO, SETTLED, miss(), GO),
      row(`${route} and once more`, again, GO, SETTLED, again, GO),
      row(`${route} with a hit in its packet`, miss() + HIT, GO),
      row(`${route} with a hit behind it`, miss(), SETTLED, HIT, GO),
      row(`${route} with hits behind it`, miss(), SETTLED, HIT, SETTLED, HIT + HIT, GO, SETTLED, HIT),
      row(`${route} with others behind it`, miss(), SETTLED, miss(), miss(), GO, SETTLED, GO, SETTLED, GO),
      row(`${route} with a part of a hit behind it`, miss(), SETTLED, HIT.slice(0, 20), GO, SETTLED, HIT.slice(20)),
      row(`${route} with garbage behind it`, miss(), SETTLED, 'garbage\r\n\r\n', GO, SETTLED, HIT),
      row(
        `${route} in two pieces`,
        get(`${route}/cut/${kind}`).slice(0, 30),
        get(`${route}/cut/${kind}`).slice(30),
        GO,
      ),
      row(`${route} the last of all`, miss('Connection: close'), GO, SETTLED, HIT),
      row(`${route} by HTTP/1.0`, bare(`GET ${route}/old/${kind} HTTP/1.0`, HOST), GO),
      row(`${route} by HEAD`, head(`${route}/head/${kind}`), GO, SETTLED, HIT),
      row(`${route} whose client goes`, miss(), SETTLED, RESET, logged(1), GO),
      row(
        `${route} whose client goes, with others behind it`,
        miss(),
        SETTLED,
        HIT,
        HIT,
        SETTLED,
        RESET,
        logged(1),
        GO,
      ),
      row(`${route} beyond a limit`, ...Array.from({ length: 6 }, () => [miss('X-Client: a'), GO, SETTLED]).flat()),
    ]
  })

describe('the lanes cannot be told apart by an origin that takes its time, and then answers', () => {
  it.each(Object.keys(ANSWERS))('%s', async (kind) => {
    const pair = await start()
    expect(await differences(pair, waysThrough(kind))).toBe('')
    expect(await differences(pair, [row('behind', get(`/behind/${kind}`), GO)], 'behind')).toBe('')
  })
})

describe('the lanes cannot be told apart while the gateway drains, by', () => {
  it.each(Object.keys(ANSWERS))('%s', async (kind) => {
    const pair = await start()
    const drained = act(({ gateway }) => void gateway.drain())
    expect(await differences(pair, [row('it', get(`/${kind}`), SETTLED, drained, GO, SETTLED, HIT)])).toBe('')
  })
})

describe('the lanes cannot be told apart by time:', () => {
  it('an origin may take longer than an idle connection is kept, which is idle from its answer on', async () => {
    const pair = await start('keepAlive: 100ms')
    for (const before of [[], [HIT, SETTLED], [get('/plain', 'Accept: a') + HIT, SETTLED]]) {
      const steps = [...before, get('/uncached/whole'), pass(1300), GO, SETTLED, CLOSED]
      const { full, both } = await pair.play({ steps, last: 'apart' })
      expect(difference(full, both)).toBeNull()
      expect(both.answers).toContain('whole')
      expect(Math.min(full.waitedMs ?? 0, both.waitedMs ?? 0)).toBeGreaterThan(1000)
    }
  })
})

describe('a miss by the fast path', () => {
  it.each(['full', 'both'] as const)('is answered to a client that has ended its side (%s)', async (lanes) => {
    const pair = await start()
    const played = await pair.play({ steps: [get('/whole'), SETTLED, FINISHED, GO], last: 'apart' })
    expect(played[lanes].answers).toMatch(/HTTP\/1.1 200 OK\r\n[^]*Connection: close\r\n[^]*whole$/)
    expect(played[lanes].closedBy).toBe('end')
  })

  it.each([
    ['that comes whole takes it', '/whole', 0],
    ['that comes in parts is handed over', '/parts', 1],
    ['behind an interim one is handed over', '/hinted', 1],
  ])('%s', async (_what, path, parsed) => {
    const pair = await start()
    const heads: string[] = []
    const note = (message: unknown): void => {
      const { url, socket } = (message as { request: { url: string; socket: { localPort: number } } }).request
      if (url === path) heads.push(String(socket.localPort))
    }
    subscribe('http.server.request.start', note)
    onTestFinished(() => void unsubscribe('http.server.request.start', note))
    await pair.play({ steps: [get(path), GO], last: 'apart' })
    // The origins find two, and so does the gateway without a fast path.
    expect(heads.length - 3).toBe(parsed)
  })
})
