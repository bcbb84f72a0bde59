// A client's connection after a 101, with the test in the place of the upstream.

import { setTimeout as delay } from 'node:timers/promises'
import { expect, it } from 'vitest'
import type { BodySink, Reply, RequestContext, Upgraded } from '../../src/core/context.ts'
import { GatewayError } from '../../src/core/errors.ts'
import { converse } from '../support/client.ts'
import { holdTime } from '../support/clock.ts'
import { until } from '../support/gateway.ts'
import { serve } from './serve.ts'

const HANDSHAKE = 'GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n'

/** The upstream's side of it. */
class Side implements Upgraded {
  onSpace: (() => void) | null = null
  sink: BodySink | null = null
  received = ''
  calls: string[] = []
  /** What it takes in goes on from there. */
  hasRoom = true

  pipeTo(sink: BodySink): void {
    this.sink = sink
  }

  resume(): void {}

  cancel(): void {
    this.calls.push('cancel')
  }

  send(chunk: Buffer): boolean {
    this.received += chunk.toString('latin1')
    return this.hasRoom
  }

  sendEnd(): void {
    this.calls.push('end')
  }
}

async function setUp(options: Parameters<typeof serve>[1] = {}) {
  const side = new Side()
  const reply: Reply = { status: 101, headers: ['X-Own', 'a'], body: null, upgraded: side }
  const served = await serve((ctx: RequestContext) => {
    ctx.isUpgrading = true
    return reply
  }, options)
  const client = await converse(served.port)
  await client.flush(HANDSHAKE)
  while (side.sink === null) await new Promise((resolve) => setImmediate(resolve))
  return { side, sink: side.sink, client, ...served }
}

const MUCH = Buffer.alloc(16 * 1024 * 1024, 'x')

it.each(['end', 'fail'] as const)('delivers what came before the %s, to a client that reads late', async (how) => {
  const { side, sink, client, recorded } = await setUp()
  client.pause()
  sink.write(MUCH)
  if (how === 'end') sink.end()
  else sink.fail(new GatewayError('upstream_reset', 'Broken off.'))
  // Longer than a client may take to end its side.
  await delay(1300)
  client.resume()
  await client.end()
  expect(client.received.length).toBeGreaterThan(MUCH.length)
  expect(client.closedBy).toBe('end')
  await until(() => recorded.length === 1, 'its record')
  expect(recorded[0]).toMatchObject({ status: 101, bytesSent: MUCH.length, aborted: false })
  expect(recorded[0]?.error?.code).toBe(how === 'end' ? undefined : 'upstream_reset')
  expect(side.calls).toContain('cancel')
})

it('cuts off a client that takes nothing for writeStall', async () => {
  const { side, sink, client, recorded } = await setUp({ writeStall: '300ms' })
  client.pause()
  sink.write(MUCH)
  await until(() => recorded.length === 1, 'its end')
  expect(side.calls).toEqual(['cancel'])
  client.destroy()
})

it('is left alone where nothing waits to be taken, however long', async () => {
  const { sink, client } = await setUp({ writeStall: '100ms', headTimeout: '100ms', keepAlive: '100ms' })
  await delay(1500)
  client.send('still here')
  sink.write(Buffer.from('here too'))
  expect(await client.expect('here too')).toMatch(/^HTTP\/1\.1 101 [^]*\r\nX-Own: a\r\n/)
  client.destroy()
})

it('sends nothing behind its Close frame, and reads on', async () => {
  const { side, sink, client, listener, stopReuse } = await setUp()
  stopReuse()
  const drained = listener.drain(10_000)
  const received = await client.expect('\x88\x02\x03\xe9')
  expect(sink.write(Buffer.from('\x82\x01x', 'latin1'))).toBe(true)
  client.send('bye')
  await until(() => side.received === 'bye', 'the answer of the client')
  sink.end()
  client.finish()
  await drained
  expect(client.received).toBe(received)
})

it('adds no Close frame to one of the upstream', async () => {
  const { sink, client, listener, stopReuse } = await setUp()
  sink.write(Buffer.from('\x88\x02\x03\xe8', 'latin1'))
  const received = await client.expect('\x88\x02\x03\xe8')
  stopReuse()
  const drained = listener.drain(10_000)
  sink.end()
  client.finish()
  await drained
  expect(client.received).toBe(received)
})

const PING = '\x89\x00'

it('sends a Ping now and then to a client that is held back, between two frames, and none to one that is read', async () => {
  const clock = holdTime()
  const { side, sink, client } = await setUp()
  side.hasRoom = false
  client.send('much')
  await clock.until(() => side.received === 'much', 'what it has sent')
  clock.advance(5000)
  await clock.until(() => client.received.endsWith(PING), 'a Ping')
  sink.write(Buffer.from('\x81\x02h', 'latin1'))
  clock.advance(5000)
  sink.write(Buffer.from('i', 'latin1'))
  await clock.until(() => client.received.endsWith(`${PING}\x81\x02hi`), 'a whole frame')
  clock.advance(5000)
  await clock.until(() => client.received.endsWith(`hi${PING}`), 'the next Ping')
  side.hasRoom = true
  side.onSpace?.()
  client.send('more')
  await clock.until(() => side.received === 'muchmore', 'what it sends then')
  clock.advance(20_000)
  sink.write(Buffer.from('\x81\x02ok', 'latin1'))
  await clock.until(() => client.received.endsWith('ok'), 'the last frame')
  expect(client.received.split('\r\n\r\n')[1]).toBe(`${PING}\x81\x02hi${PING}\x81\x02ok`)
  client.destroy()
})
