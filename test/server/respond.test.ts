// What one client has not taken yet is never mixed with the answer to another.

import { type AddressInfo, type Socket, connect, createServer } from 'node:net'
import { once } from 'node:events'
import { expect, it, onTestFinished } from 'vitest'
import { RequestContext } from '../../src/core/context.ts'
import { respondAtOnce } from '../../src/server/respond.ts'

it('leaves an answer whole that waits for a slow client, while others are answered', async () => {
  const slow = await pair()
  const other = await pair()
  let sent = 0
  while (slow.ours.writableLength === 0) {
    answer(slow.ours, 'a')
    sent++
  }
  answer(other.ours, 'b')
  answer(other.ours, 'b')

  slow.ours.end()
  other.ours.end()
  expect(bodiesOf(await textOf(other.client))).toEqual(['b'.repeat(BODY_BYTES), 'b'.repeat(BODY_BYTES)])
  const bodies = bodiesOf(await textOf(slow.client))
  expect(bodies.length).toBe(sent)
  expect(bodies.every((body) => body === 'a'.repeat(BODY_BYTES))).toBe(true)
})

const BODY_BYTES = 10_000

function answer(socket: Socket, letter: string): void {
  const ctx = new RequestContext(
    {
      method: 'GET',
      scheme: 'http',
      host: 'a.example',
      path: '/',
      query: '',
      version: '1.1',
      headers: [],
      body: null,
      peerAddress: '127.0.0.1',
      receivedAtMs: performance.now(),
    },
    'id-1',
  )
  respondAtOnce(socket, ctx, { status: 200, headers: [], body: Buffer.alloc(BODY_BYTES, letter) }, false, 5000)
}

/** Two ends of a connection; nobody reads yet. */
async function pair(): Promise<{ readonly ours: Socket; readonly client: Socket }> {
  const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [ours] = (await once(server, 'connection')) as [Socket]
  onTestFinished(() => {
    client.destroy()
    ours.destroy()
    server.close()
  })
  return { ours, client }
}

async function textOf(client: Socket): Promise<string> {
  let text = ''
  for await (const chunk of client.setEncoding('latin1')) text += chunk
  return text
}

const bodiesOf = (text: string): string[] =>
  text
    .split(/HTTP\/1\.1 200 OK\r\n/)
    .slice(1)
    .map((message) => message.slice(message.indexOf('\r\n\r\n') + 4))
