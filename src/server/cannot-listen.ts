// Why a port cannot be opened, in words for somebody who has just typed a command.

import { type Address, formatAddress } from './options.ts'

/** By the system's code. */
const CANNOT_LISTEN: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there; stop that one, or choose another port',
  EACCES: 'this user may not; ports below 1024 need more rights than others',
  EADDRNOTAVAIL: 'this machine has no such address; 0.0.0.0 is all it has',
  ENOTFOUND: 'no address is known for this name; 0.0.0.0 is all that this machine has',
}

/** Throws what a refused attempt to listen comes to. option: where the address stands in the configuration. */
export const cannotListen =
  (option: string, wanted: Address) =>
  (cause: unknown): never => {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : ''
    const why = CANNOT_LISTEN[code] ?? (cause instanceof Error ? cause.message : String(cause))
    throw new Error(`${option}: cannot listen on ${formatAddress(wanted)}: ${why}`, { cause })
  }
