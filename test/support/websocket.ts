// WebSockets at both ends: a backend that takes them, and clients that keep what they were told.

import http from 'node:http'
import https from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { onTestFinished } from 'vitest'
import type { Certificate } from './certificate.ts'
import { until } from './gateway.ts'
import { WebSocket, type ServerOptions, WebSocketServer } from 'ws'

export interface SocketOrigin {
  readonly url: string
  readonly port: number
  readonly server: WebSocketServer
  /** Handshakes so far. */
  readonly seen: readonly http.IncomingMessage[]
  /** Connections open now, WebSockets or not. */
  readonly openSockets: number
  /** Codes with which sockets have closed. */
  readonly closeCodes: readonly number[]
  /** Breaks every connection off. */
  kill(): void
  close(): Promise<void>
}

/** Answers each message with the same, until the test ends. port: 0 for any. certificate: it is reached by TLS, as localhost. */
export async function startSocketOrigin(
  options: Omit<ServerOptions, 'server'> = {},
  { port = 0, plain, certificate }: { port?: number; plain?: http.RequestListener; certificate?: Certificate } = {},
): Promise<SocketOrigin> {
  const sockets = new Set<Socket>()
  const seen: http.IncomingMessage[] = []
  const closeCodes: number[] = []
  const answer = plain ?? ((_request, response: http.ServerResponse) => response.end('no handshake'))
  const httpServer = certificate === undefined ? http.createServer(answer) : https.createServer(certificate, answer)
  httpServer.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  const server = new WebSocketServer({ server: httpServer, ...options })
  server.on('connection', (socket, request) => {
    seen.push(request)
    socket.on('error', () => {})
    socket.on('close', (code) => closeCodes.push(code))
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
  await new Promise<void>((resolve, reject) => {
    httpServer.once('error', reject)
    httpServer.listen(port, '127.0.0.1', resolve)
  })
  const kill = (): void => {
    for (const socket of sockets) socket.resetAndDestroy()
  }
  const close = (): Promise<void> => {
    kill()
    return new Promise((resolve) => httpServer.close(() => resolve()))
  }
  onTestFinished(close)
  const address = httpServer.address() as AddressInfo
  return {
    url: certificate === undefined ? `http://127.0.0.1:${address.port}` : `https://localhost:${address.port}`,
    port: address.port,
    server,
    seen,
    get openSockets() {
      return sockets.size
    },
    closeCodes,
    kill,
    close,
  }
}

export interface SocketClient {
  readonly socket: WebSocket
  /** Texts that have come. */
  readonly messages: readonly string[]
  readonly code: number | null
  /** Sends a text and waits for the same to come back. */
  ask(text: string): Promise<string>
  /** The code with which it has closed. */
  closed(): Promise<number>
}

/** Resolves when the socket is open; rejects with the status where the answer is another. */
export function openSocket(
  url: string,
  headers: Readonly<Record<string, string>> = {},
  protocols: readonly string[] = [],
): Promise<SocketClient> {
  const socket = new WebSocket(url.replace(/^http/, 'ws'), [...protocols], { headers })
  const messages: string[] = []
  let code: number | null = null
  const isClosed = Promise.withResolvers<number>()
  socket.on('message', (data) => messages.push((data as Buffer).toString()))
  socket.on('close', (closeCode) => {
    code = closeCode
    isClosed.resolve(closeCode)
  })
  onTestFinished(() => socket.terminate())
  const client: SocketClient = {
    socket,
    messages,
    get code() {
      return code
    },
    async ask(text) {
      socket.send(text)
      await until(() => messages.includes(text) || code !== null, 'an answer')
      if (!messages.includes(text)) throw new Error(`closed with ${code} before it answered`)
      return text
    },
    closed: () => isClosed.promise,
  }
  return new Promise((resolve, reject) => {
    socket.once('open', () => resolve(client))
    socket.on('error', reject)
  })
}
