// An origin that does only what the test does: it reads no body by itself, and its bytes and sockets can be counted.

import http from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { onTestFinished } from 'vitest'

export interface BareOrigin {
  readonly url: string
  readonly openSockets: number
  /** Bytes that have come in and gone out on all connections, heads and all. Those that went out include what the
   *  system has yet to deliver. */
  readonly bytesRead: number
  readonly bytesWritten: number
}

/** Listens until the test ends. */
export async function startBareOrigin(onRequest: http.RequestListener): Promise<BareOrigin> {
  const sockets = new Set<Socket>()
  const all: Socket[] = []
  const server = http.createServer({ keepAliveTimeout: 60_000 }, onRequest)
  server.on('connection', (socket) => {
    sockets.add(socket)
    all.push(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    get openSockets() {
      return sockets.size
    },
    get bytesRead() {
      return all.reduce((sum, socket) => sum + socket.bytesRead, 0)
    },
    get bytesWritten() {
      return all.reduce((sum, socket) => sum + socket.bytesWritten - socket.writableLength, 0)
    },
  }
}
