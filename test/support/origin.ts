// A scriptable origin over real sockets: it records what it saw and answers what the test says.

import http from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'

export interface Seen {
  readonly method: string
  /** As on the wire. */
  readonly url: string
  /** Flat, as on the wire. */
  readonly rawHeaders: readonly string[]
  readonly headers: http.IncomingHttpHeaders
  readonly body: Promise<Buffer>
}

export type Script = (request: http.IncomingMessage, response: http.ServerResponse, count: number) => void

export interface Origin {
  readonly url: string
  readonly port: number
  readonly seen: readonly Seen[]
  /** Requests that were broken off before their answer was complete. */
  readonly aborted: number
  readonly openSockets: number
  answer(script: Script): void
  close(): Promise<void>
}

const plain: Script = (_request, response, count) => {
  response.setHeader('Content-Type', 'text/plain')
  response.end(`answer ${count}`)
}

/** port: 0 for any. */
export async function startOrigin(first: Script = plain, port = 0): Promise<Origin> {
  const seen: Seen[] = []
  const sockets = new Set<Socket>()
  let script = first
  let aborted = 0
  const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    const { method = '', url = '', rawHeaders, headers } = request
    seen.push({ method, url, rawHeaders, headers, body: collect(request) })
    response.on('close', () => {
      if (!response.writableFinished) aborted++
    })
    script(request, response, seen.length)
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  const listening = await listen(server, port)
  return {
    url: `http://127.0.0.1:${listening}`,
    port: listening,
    seen,
    get aborted() {
      return aborted
    },
    get openSockets() {
      return sockets.size
    },
    answer(next) {
      script = next
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** An origin that answers bytes: for everything that node:http would not send. */
export interface RawOrigin {
  readonly url: string
  readonly connections: number
  close(): Promise<void>
}

/** onRequest: called with each socket whenever a request head has come whole. */
export async function startRawOrigin(
  onRequest: (socket: Socket, head: string, count: number) => void,
): Promise<RawOrigin> {
  const sockets = new Set<Socket>()
  let connections = 0
  let requests = 0
  const server = net.createServer((socket) => {
    connections++
    sockets.add(socket)
    let pending = ''
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (chunk) => {
      pending += chunk.toString('latin1')
      for (let end = pending.indexOf('\r\n\r\n'); end !== -1; end = pending.indexOf('\r\n\r\n')) {
        const head = pending.slice(0, end)
        pending = pending.slice(end + 4)
        onRequest(socket, head, ++requests)
      }
    })
  })
  const port = await listen(server)
  return {
    url: `http://127.0.0.1:${port}`,
    get connections() {
      return connections
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** A port of 127.0.0.1 on which nothing listens, nor will: it is not among those that systems give away, so that no server
 *  that is started later gets it. */
export async function closedPort(): Promise<number> {
  for (;;) {
    const server = net.createServer()
    try {
      const port = await listen(server, 15_000 + Math.floor(Math.random() * 15_000))
      await new Promise((resolve) => server.close(resolve))
      return port
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    }
  }
}

async function collect(request: http.IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  try {
    for await (const chunk of request) chunks.push(chunk as Buffer)
  } catch {
    // Broken off: what came until then is what there is.
  }
  return Buffer.concat(chunks)
}

async function listen(server: net.Server, port = 0): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  return (server.address() as AddressInfo).port
}
