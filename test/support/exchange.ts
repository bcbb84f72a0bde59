// One exchange as bytes: for tests that must see exactly what went over the wire, field by field.

import { converse } from './client.ts'

export interface Exchanged {
  readonly status: number
  /** Without the empty line, latin1. */
  readonly head: string
  /** Chunks still in their coding, latin1. */
  readonly body: string
  /** Values of a field, in order. */
  readonly values: (lowerName: string) => string[]
}

/** Sends the bytes on a connection of their own and reads until the other side closes; ask it to, with
 *  `Connection: close`. Interim answers are skipped. */
export async function exchange(port: number, bytes: string | Buffer): Promise<Exchanged> {
  const conversation = await converse(port, bytes)
  await conversation.end()
  return parse(conversation.received)
}

function parse(received: string): Exchanged {
  const end = received.indexOf('\r\n\r\n')
  const head = end === -1 ? received : received.slice(0, end)
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1] ?? 0)
  const body = end === -1 ? '' : received.slice(end + 4)
  if (status >= 100 && status < 200) return parse(body)
  return { status, head, body, values: (lowerName) => fieldValues(head, lowerName) }
}

/** Values of a field in a head, in order. */
export function fieldValues(head: string, lowerName: string): string[] {
  return head
    .split('\r\n')
    .slice(1)
    .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()] as const)
    .filter(([name]) => name.toLowerCase() === lowerName)
    .map(([, value]) => value)
}

/** A whole request that asks for the connection to be closed after it. fields: lines without their ends. */
export function get(path: string, fields: readonly string[] = []): string {
  const lines = [`GET ${path} HTTP/1.1`, 'Host: shop.test', 'Connection: close', ...fields]
  return `${lines.join('\r\n')}\r\n\r\n`
}
