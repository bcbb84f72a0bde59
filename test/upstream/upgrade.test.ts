// What a pool knows of connections that have gone over to another protocol.

import type { Socket } from 'node:net'
import { expect, it } from 'vitest'
import type { Upgraded } from '../../src/core/context.ts'
import { closeAfterEach } from '../support/closing.ts'
import { until } from '../support/gateway.ts'
import { startRawOrigin } from '../support/origin.ts'
import { type TestPool, type TestSink, failureOf, openPool, testSink } from '../support/upstream.ts'

const closing = closeAfterEach()

const SWITCHED = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n'

interface Opened {
  readonly upgraded: Upgraded
  readonly sink: TestSink
}

async function setUp(answer = SWITCHED): Promise<{ pool: TestPool; sockets: Socket[]; open: () => Promise<Opened> }> {
  const sockets: Socket[] = []
  const origin = closing(
    await startRawOrigin((socket) => {
      sockets.push(socket)
      socket.write(answer, 'latin1')
    }),
  )
  const pool = closing(openPool([origin.url]))
  return {
    pool,
    sockets,
    async open() {
      const { upgraded } = await pool.fetch({ isHandshake: true }).answer
      if (upgraded === null) throw new Error('expected a 101')
      const sink = testSink()
      upgraded.pipeTo(sink)
      return { upgraded, sink }
    },
  }
}

const target = ({ pool }: TestPool) => pool.status().targets[0]

it('has what came with the 101, and both directions', async () => {
  const { sockets, open } = await setUp(`${SWITCHED}first`)
  const { upgraded, sink } = await open()
  let received = ''
  if (sockets[0] !== undefined) sockets[0].allowHalfOpen = true
  sockets[0]?.on('data', (chunk: Buffer) => (received += chunk.toString()))
  upgraded.send(Buffer.from('up'))
  sockets[0]?.write(' second')
  await until(() => sink.text === 'first second' && received === 'up', 'both')
  upgraded.sendEnd()
  await until(() => sockets[0]?.readableEnded === true, 'the end of what was sent')
  sockets[0]?.end(' third')
  await sink.over
  expect([sink.text, sink.calls.at(-1)]).toEqual(['first second third', 'end'])
})

it.each([
  ['a 101 without Connection', 'HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n'],
  ['a 101 with a transfer coding', SWITCHED.replace('Upgrade:', 'Transfer-Encoding: chunked\r\nUpgrade:')],
  ['a 101 with a length', SWITCHED.replace('Upgrade:', 'Content-Length: 1\r\nUpgrade:')],
])('is none after %s', async (_what, answer) => {
  const { pool } = await setUp(answer)
  expect(await failureOf(pool.fetch({ isHandshake: true }))).toBe('upstream_invalid')
})

it('is none for who has not asked for it', async () => {
  const { pool } = await setUp()
  expect(await failureOf(pool.fetch())).toBe('upstream_invalid')
})

it('keeps its pool from closing until it ends, and takes no place in it', async () => {
  const { pool, sockets, open } = await setUp()
  const { sink } = await open()
  expect(target(pool)).toMatchObject({ in_flight: 0, queued: 0, open_connections: 1 })
  let isClosed = false
  const closed = pool.pool.close().then(() => (isClosed = true))
  // A round trip later it would have been closed.
  sockets[0]?.write('still')
  await until(() => sink.text === 'still', 'it to go on')
  expect(isClosed).toBe(false)
  sockets[0]?.end()
  await closed
  expect([sink.calls.at(-1), target(pool)?.open_connections]).toEqual(['end', 0])
})

it('is broken off with its pool', async () => {
  const { pool, sockets, open } = await setUp()
  const { sink } = await open()
  await pool.close()
  await sink.over
  expect(sink.calls).toEqual(['fail:draining'])
  await until(() => sockets[0]?.readableEnded === true, 'the origin to hear of it')
})

it('says nothing of its target by the way it ends', async () => {
  const { pool, sockets, open } = await setUp()
  const opened = await Promise.all(Array.from({ length: 20 }, open))
  for (const socket of sockets) socket.resetAndDestroy()
  for (const { sink } of opened) {
    await sink.over
    expect(sink.calls).toEqual(['fail:upstream_reset'])
  }
  expect(target(pool)).toMatchObject({ state: 'up', exits: 0, open_connections: 0 })
})
