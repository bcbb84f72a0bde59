// An origin that closes a connection shortly after its last request, without having said so: `node racing-origin.ts PORT`.
// Half of them end, half are reset.

import { writeSync } from 'node:fs'
import http from 'node:http'
import type { Socket } from 'node:net'
import { bodyOf, stampOf } from './stamp.ts'

const CLOSES_AFTER_MS = 40
const closing = new WeakMap<Socket, NodeJS.Timeout>()
let closed = 0

const server = http.createServer((message, response) => {
  const { socket } = message
  clearTimeout(closing.get(socket))
  const id = String(message.headers['x-id'])
  if (message.method === 'POST') writeSync(1, `POST ${id}\n`)
  message.resume()
  // With a field of its own Node does not tell how long it would keep the connection.
  response.setHeader('Connection', 'keep-alive')
  response.end(bodyOf(stampOf({ path: message.url ?? '', id, user: '' }), 10), () => {
    const close = (): void => void (closed++ % 2 === 0 ? socket.end() : socket.resetAndDestroy())
    closing.set(socket, setTimeout(close, CLOSES_AFTER_MS))
  })
})
server.keepAliveTimeout = 0
server.listen(Number(process.argv[2]), '127.0.0.1', () => process.send?.('listening'))
