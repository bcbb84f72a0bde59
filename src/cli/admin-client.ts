// Asks a running gateway through its admin port, as the configuration names it.

import type { AdminOptions } from '../admin/options.ts'
import { formatAddress } from '../server/options.ts'
import { UsageError } from './files.ts'

/** A gateway that listens answers at once; this bounds the wait for one that does not. */
const TIMEOUT_MS = 10_000

/** No gateway answers at the admin address. */
export class NotRunning extends Error {}

/** The JSON answer of an admin endpoint, which has this member: what listens there may be something else that answers in JSON.
 *  Throws NotRunning, or with the gateway's own words a UsageError where it cannot make out what is asked, else an Error. */
export async function askAdmin(
  admin: AdminOptions,
  method: 'GET' | 'POST',
  path: string,
  member: string,
  body?: unknown,
): Promise<unknown> {
  const { listen, token } = admin
  const host = listen.host === '0.0.0.0' || listen.host === '::' ? '127.0.0.1' : listen.host
  const url = `http://${formatAddress({ host, port: listen.port })}${path}`
  const headers: Record<string, string> = token === '' ? {} : { authorization: `Bearer ${token}` }
  const request: RequestInit = { method, headers, signal: AbortSignal.timeout(TIMEOUT_MS) }
  if (body !== undefined) {
    headers['content-type'] = 'application/json'
    request.body = JSON.stringify(body)
  }
  let response: Response
  try {
    response = await fetch(url, request)
  } catch (cause) {
    throw new NotRunning(`No gateway answers at ${url}; weirgate run starts one.`, { cause })
  }
  const answer: unknown = await response.json().catch(() => null)
  const type = response.headers.get('content-type')
  if (response.ok && type === 'application/json' && memberOf(answer, member) !== undefined) return answer
  const detail = memberOf(answer, 'detail')
  if (!response.ok && type === 'application/problem+json' && typeof detail === 'string') {
    const words = `The gateway answered ${response.status}: ${detail}`
    throw response.status === 400 ? new UsageError(words) : new Error(words)
  }
  throw new Error(`What answers at ${url} is not a gateway; admin.listen names its address.`)
}

const memberOf = (answer: unknown, name: string): unknown =>
  typeof answer === 'object' && answer !== null ? Reflect.get(answer, name) : undefined
