// What YAML may say of the public listener: its address and the bounds on every client. All bounds are on by default;
// the figures beside them are the defaults and their reasons are in the README's table of limits.

import { z } from 'zod'
import { count, decoded, duration, later, size } from '../core/decode.ts'

export interface Address {
  readonly host: string
  readonly port: number
}

/** `host:port`, `[v6]:port`; port 0 lets the system choose. */
export function parseAddress(text: string): Address | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text)
  if (match === null) return null
  const port = Number(match[3])
  return port > 65_535 ? null : { host: (match[1] ?? match[2]) as string, port }
}

export const formatAddress = (address: Address): string =>
  address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`

export const address = () =>
  decoded('an address such as "0.0.0.0:8080"', 'write host:port; port 0 means any free port', parseAddress)

const listenMapping = z.strictObject({
  address: address().describe('host:port to listen on; port 0 means any free port'),
  tls: later(),
  http2: later(),
  proxyProtocol: later(),
  connections: count({ min: 1, max: 1_000_000 })
    .prefault(10_000)
    .describe(
      'open client connections; more are refused, and so are those beyond three quarters of the files that the system lets the process open',
    ),
  connectionsPerAddress: count({ min: 1, max: 1_000_000 })
    .prefault(256)
    .describe('open connections of one client address, trusted proxies excepted; more are refused'),
  requestsPerConnection: count({ min: 1, max: 1_000_000_000 })
    .prefault(1000)
    .describe('requests on one connection before it is closed'),
  headBytes: size({ minBytes: 1024 })
    .prefault('16KiB')
    .describe('request line and header fields together; more is a 431'),
  headLine: size({ minBytes: 256 }).prefault('8KiB').describe('one header field; more is a 431'),
  headFields: count({ min: 10, max: 10_000 }).prefault(100).describe('header fields of a request; more is a 431'),
  target: size({ minBytes: 256 }).prefault('8KiB').describe('request target; more is a 414'),
  headTimeout: duration({ minMs: 100 }).prefault('10s').describe('time for a whole request head; then 408'),
  bodyIdle: duration({ minMs: 100 }).prefault('10s').describe('longest gap in a request body; then 408'),
  bodyRate: size()
    .prefault('500B')
    .describe('of a request body each second, some ten of them apart; less is a 408. 0B: however slow'),
  keepAlive: duration({ minMs: 0 }).prefault('65s').describe('how long an idle connection is kept'),
  writeStall: duration({ minMs: 100 })
    .prefault('30s')
    .describe('how long a client may take no byte of its answer before it is cut off'),
  drain: duration({ minMs: 0 }).prefault('30s').describe('how long answers in flight may take after SIGTERM'),
})

export type ListenOptions = z.output<typeof listenMapping>

/** `listen: 0.0.0.0:8080`, or a mapping where more is to be said. */
export const listenOptions = z
  .union([address().transform((parsed) => listenMapping.parse({ address: formatAddress(parsed) })), listenMapping])
  .describe('where clients connect')
