// How a connection to a target is made: within its time to the millisecond, by TLS under the target's own name whatever
// Host the request carries. And how it is read: over plain TCP all connections share one buffer.

import net from 'node:net'
import { GatewayError } from '../core/errors.ts'
import type { Resolution } from './resolve.ts'

/** Shared, since what comes is taken in before anything else is read. With a buffer for each read, as streams have it, a
 *  miss costs 1.5 us more, and four times the garbage. Not on Windows, which takes the buffer before there is
 *  anything to read. */
const READ_BUFFER = process.platform === 'win32' ? null : Buffer.allocUnsafeSlow(64 * 1024)

/** Makes a connection. take: gets what it reads, in a buffer that is written to again after the call. done: called once,
 *  with the failure, or with null when the connection stands; not called where the socket is destroyed before. */
export type Connect = (take: (bytes: Buffer) => void, done: (error: GatewayError | null) => void) => net.Socket

/** resolution: of the addresses of its name; null: it is given by an address. */
export function compileConnect(
  { protocol, hostname, port }: URL,
  connectMs: number,
  resolution: Resolution | null = null,
): Connect {
  const isSecure = protocol === 'https:'
  // Takes 10 ms and 4 MiB to load.
  const tls = isSecure ? process.getBuiltinModule('node:tls') : null
  const host = hostname.replace(/^\[|\]$/g, '')
  const found = resolution === null ? {} : { lookup: resolution.lookup }
  const options = { host, port: Number(port) || (isSecure ? 443 : 80), noDelay: true, keepAlive: true, ...found }
  const named = net.isIP(host) === 0 ? { servername: host } : {}
  let session: Buffer | undefined

  return (take, done) => {
    const onread = READ_BUFFER && {
      buffer: READ_BUFFER,
      callback(bytes: number): boolean {
        take(READ_BUFFER.subarray(0, bytes))
        return true
      },
    }
    const resumed = session === undefined ? {} : { session }
    const socket: net.Socket = tls
      ? tls.connect({ ...options, ...named, ...resumed, ALPNProtocols: ['http/1.1'] })
      : net.connect(onread === null ? options : { ...options, onread })
    if (isSecure || onread === null) socket.on('data', take)
    if (isSecure) socket.on('session', (fresh: Buffer) => (session = fresh))

    const timer = setTimeout(() => {
      const why = `The upstream did not accept a connection in ${connectMs} ms.`
      socket.destroy(new GatewayError('timeout_connect', why))
    }, connectMs)
    const onError = (cause: Error): void => {
      clearTimeout(timer)
      resolution?.doubt()
      done(cause instanceof GatewayError ? cause : failure(cause))
    }
    return socket
      .once(isSecure ? 'secureConnect' : 'connect', () => {
        clearTimeout(timer)
        socket.off('error', onError)
        done(null)
      })
      .once('close', () => clearTimeout(timer))
      .on('error', onError)
  }
}

/** That this process has no file or memory left for a connection says nothing of the target. */
const OWN_SHORTAGES: ReadonlySet<string | undefined> = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM'])

function failure(cause: NodeJS.ErrnoException): GatewayError {
  if (!OWN_SHORTAGES.has(cause.code)) {
    return new GatewayError('upstream_refused', 'No connection to the upstream could be made.', { cause })
  }
  const why = 'The gateway cannot open another connection to the upstream. Try again later.'
  return new GatewayError('overloaded', why, { cause, retryAfterSeconds: 1 })
}
