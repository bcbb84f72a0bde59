// The public listener: which connections there are, how many there may be, and how all of them end. What one client
// does on its connection is connection.ts. Node's own limit on the number of header fields is off on purpose: it hides
// fields from us that it still frames by (CVE-2026-58044); full-lane.ts counts them. Leniency of its parser is off
// whatever the command line says.

import type { IncomingMessage, RequestListener } from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'
import { http } from '../core/node-http.ts'
import { unmapAddress } from '../http/forwarded.ts'
import { ClientConnection, KEEP_ALIVE_GRACE_MS, type Lanes } from './connection.ts'
import { connectionsThatFit } from './descriptors.ts'
import type { Door } from './door.ts'
import { createFullLane } from './full-lane.ts'
import type { Address, ListenOptions } from './options.ts'

/** How often Node looks for heads that are late: the precision of headTimeout. */
const CHECK_INTERVAL_MS = 1000

export interface ListenerDoor extends Door {
  /** Trusted proxies carry many clients; the bound per address is not for them. */
  isTrusted(address: string): boolean
}

export interface Listener {
  /** Answers with the address in use. Rejects when it is taken. */
  listen(): Promise<Address>
  readonly openConnections: number
  /** So many may be open: as `connections` says, or fewer where the system has no files for them. */
  readonly maxConnections: number
  /** Connections refused because of a bound. */
  readonly refusedConnections: number
  /** Requests that the fast path has answered. */
  readonly fastAnswers: number
  /** Connections that are WebSockets now. */
  readonly openWebSockets: number
  /** Accepts no more; resolves when every answer in flight has ended, or after deadlineMs, when the rest is cut off. */
  drain(deadlineMs: number): Promise<void>
  /** Cuts everything off. */
  destroy(): void
}

export function createListener(options: ListenOptions, door: ListenerDoor, lanes: Lanes = 'both'): Listener {
  const lane = createFullLane(options, door)
  const maxConnections = Math.min(options.connections, connectionsThatFit())
  const connections = new Map<Socket, ClientConnection>()
  const perNetwork = new Map<string, number>()
  const tally = { fastAnswers: 0, websockets: 0 }
  let refusedConnections = 0
  let whenEmpty: (() => void) | null = null

  /** Reads what the fast path leaves. */
  const engine = http.createServer({
    maxHeaderSize: options.headBytes,
    headersTimeout: options.headTimeout,
    // A whole request is bounded by its body's gaps and by the route's total timeout.
    requestTimeout: 0,
    connectionsCheckingInterval: Math.min(CHECK_INTERVAL_MS, options.headTimeout),
    keepAliveTimeout: options.keepAlive,
    keepAliveTimeoutBuffer: KEEP_ALIVE_GRACE_MS,
    requireHostHeader: false,
    insecureHTTPParser: false,
  })
  engine.maxHeadersCount = 0
  // A client that ends its side after its request still gets its answer. Node has no other way to say so.
  Object.assign(engine, { httpAllowHalfOpen: true })
  // It never listens by itself, and begins with this to look for heads that are late.
  engine.emit('listening')

  function engage(socket: Socket): (chunk: Buffer) => void {
    engine.emit('connection', socket)
    const [parse] = socket.listeners('data')
    // It would read the socket itself, out of everybody's sight, if nobody else listened.
    socket.removeAllListeners('data')
    socket.on('data', () => {})
    return parse as (chunk: Buffer) => void
  }

  const server = net.createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (accepted) => {
    // A connection that was reset before it was accepted has no address; there is nobody to answer.
    if (accepted.remoteAddress === undefined) {
      accepted.destroy()
      return
    }
    if (connections.size >= maxConnections) {
      refusedConnections++
      accepted.destroy()
      return
    }
    const address = unmapAddress(accepted.remoteAddress)
    const network = networkOf(address)
    const count = (perNetwork.get(network) ?? 0) + 1
    if (count > options.connectionsPerAddress && !door.isTrusted(address)) {
      refusedConnections++
      accepted.destroy()
      return
    }
    perNetwork.set(network, count)
    const setup = { accepted, address, options, door, lane, lanes, engage, tally }
    const connection = new ClientConnection(setup)
    const { socket } = connection
    connections.set(socket, connection)
    socket.once('close', () => {
      connections.delete(socket)
      if (connections.size === 0) whenEmpty?.()
      const left = (perNetwork.get(network) ?? 1) - 1
      if (left === 0) perNetwork.delete(network)
      else perNetwork.set(network, left)
    })
  })

  const take: RequestListener = (message, response) => connections.get(message.socket)?.take({ message, response })
  engine.on('request', take)
  engine.on('checkContinue', take)
  engine.on('checkExpectation', take)
  engine.on('clientError', (error, socket) => connections.get(socket as Socket)?.onParseError(error))
  engine.on('connect', (message: IncomingMessage) => connections.get(message.socket)?.onConnect(message))
  engine.setTimeout(options.writeStall, (socket: Socket) => connections.get(socket)?.onTimeout())

  const cutOff = () => {
    for (const socket of connections.keys()) socket.destroy()
  }
  return {
    maxConnections,
    listen: () =>
      new Promise((resolve, reject) => {
        server.once('error', reject)
        server.listen(options.address.port, options.address.host, () => {
          server.off('error', reject)
          // Out of files, say, which upstreams have taken: that connection is lost, the others are not.
          server.on('error', () => refusedConnections++)
          const { address, port } = server.address() as AddressInfo
          resolve({ host: address, port })
        })
      }),
    get openConnections() {
      return connections.size
    },
    get fastAnswers() {
      return tally.fastAnswers
    },
    get openWebSockets() {
      return tally.websockets
    },
    get refusedConnections() {
      return refusedConnections
    },
    drain: (deadlineMs) =>
      new Promise((resolve) => {
        const timer = setTimeout(cutOff, deadlineMs)
        server.close()
        whenEmpty = () => {
          clearTimeout(timer)
          engine.close()
          resolve()
        }
        if (connections.size === 0) whenEmpty()
        for (const connection of connections.values()) connection.retire()
      }),
    destroy() {
      server.close()
      engine.close()
      cutOff()
    },
  }
}

/** What counts as one client: an IPv4 address, or the first four groups of IPv6, since a client has all of its /64.
 *  address: canonical (RFC 5952). */
export function networkOf(address: string): string {
  if (!address.includes(':')) return address
  const [head = [], tail = []] = address.split('::').map((half) => (half === '' ? [] : half.split(':')))
  const zeros = Array.from({ length: 8 - head.length - tail.length }, () => '0')
  return [...head, ...zeros, ...tail].slice(0, 4).join(':')
}
