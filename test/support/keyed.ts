// Requests with an Idempotency-Key before a real gateway, and an origin that answers them when it is told to.

import type { ServerResponse } from 'node:http'
import { type Answer, type RequestOptions, request } from './client.ts'
import type { TestGateway } from './gateway.ts'
import type { Script } from './origin.ts'

export const KEY = '8e03978e-40d5-43dd-bc93-6894a57f9324'

export interface Sent extends Omit<RequestOptions, 'headers'> {
  /** null: none. */
  readonly key?: string | null
  /** In place of the credentials of Alice. */
  readonly headers?: Readonly<Record<string, string>>
  readonly path?: string
}

const ALICE = { Authorization: 'Bearer alice' }

/** A POST of Alice, unless told otherwise; the same on all instances, which clients know by one name. */
export const send = (
  { url }: Pick<TestGateway, 'url'>,
  { key = KEY, headers = ALICE, path = '/pay', method = 'POST', body = '{"n":1}', ...rest }: Sent = {},
): Promise<Answer> =>
  request(url + path, {
    ...rest,
    method,
    body,
    headers: {
      Host: 'shop.test',
      'Content-Type': 'application/json',
      ...headers,
      ...(key === null ? {} : { 'Idempotency-Key': key }),
    },
  })

export const isReplayed = ({ headers }: Answer): boolean => headers['idempotency-replayed'] === 'true'

export const codeOf = ({ text }: Answer): unknown => (JSON.parse(text) as { code: unknown }).code

/** An origin whose answers wait, each to be given by a call. */
export function gate() {
  const waiting: ((status?: number, text?: string) => void)[] = []
  const script: Script = (_request, response: ServerResponse, count) => {
    waiting.push((status = 201, text = `deed ${count}`) => response.writeHead(status).end(text))
  }
  return { waiting, script }
}
