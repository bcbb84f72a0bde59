// A row of the corpus: a name, and what happens on one connection. The words that rows are written in.

import type { Step } from './pair.ts'
import { SETTLED } from './pair.ts'

export interface Row {
  readonly name: string
  readonly steps: readonly Step[]
  /** The client's address. */
  readonly from?: string
}

export const row = (name: string, ...steps: readonly Step[]): Row => ({ name, steps })

/** The same, from another address. */
export const from = (address: string, { name, steps }: Row): Row => ({ name, steps, from: address })

/** One request after the other, each when the one before has been answered. */
export const inTurn = (name: string, requests: readonly Step[]): Row => ({
  name,
  steps: requests.flatMap((request, i) => (i === 0 ? [request] : [SETTLED, request])),
})

export const HOST = 'Host: gateway.test'

/** A whole request without a body. fields: lines without their ends. */
export const ask = (method: string, target: string, ...fields: readonly string[]): string =>
  bare(`${method} ${target} HTTP/1.1`, HOST, ...fields)
export const get = (target: string, ...fields: readonly string[]): string => ask('GET', target, ...fields)
export const head = (target: string, ...fields: readonly string[]): string => ask('HEAD', target, ...fields)
/** A whole POST. */
export const post = (target: string, body: string, ...fields: readonly string[]): string =>
  ask('POST', target, ...fields, `Content-Length: ${body.length}`) + body

/** Just these lines, and the empty one. */
export const bare = (...lines: readonly string[]): string => lines.map((line) => `${line}\r\n`).join('') + '\r\n'

/** Text as a test's name. */
export const shown = (text: string): string => {
  const quoted = JSON.stringify(text)
    .slice(1, -1)
    .replaceAll(/[\x7f-\xff]/g, (c) => `\\x${c.charCodeAt(0).toString(16)}`)
  return quoted.length <= 60 ? quoted : `${quoted.slice(0, 40)}... (${text.length})`
}
