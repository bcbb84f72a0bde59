// When the parser of the full lane is known to stand between two messages.

import { expect, it } from 'vitest'
import { LaneInput } from '../../src/server/lane-input.ts'

const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
const post = (length: number) => `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\n`
const CHUNKED = 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n'

/** messages: how many of them are complete and answered. bodyBytes: declared by the last. */
it.each<[what: string, chunks: string[], messages: number, bodyBytes: number | null, isKnown: boolean]>([
  ['one request', [GET], 1, null, true],
  ['one in pieces', ['GET / HTTP/1.1\r\nHo', 'st: a\r\n\r\n'], 1, null, true],
  ['several at once', [GET + GET], 2, null, true],
  ['with the beginning of another', [`${GET}GE`], 1, null, false],
  ['one whose end came in small pieces', [GET.slice(0, -3), '\n', '\r', '\n'], 1, null, true],
  ['a body of declared length', [`${post(2)}ab`], 1, 2, true],
  ['one that came apart', [post(2), 'a', 'b'], 1, 2, true],
  ['one with the beginning of another', [`${post(2)}abG`], 1, 2, false],
  ['one behind another', [`${GET}${post(2)}ab`], 2, 2, false],
  ['one whose head came in pieces', [post(2).slice(0, 9), post(2).slice(9), 'ab'], 1, 2, true],
  ['chunks', [`${CHUNKED}1\r\na\r\n0\r\n\r\n`], 1, null, true],
  ['chunks with the beginning of another', [`${CHUNKED}1\r\na\r\n0\r\n\r\nG`], 1, null, false],
])('%s', (_what, chunks, messages, bodyBytes, isKnown) => {
  const input = new LaneInput()
  for (const chunk of chunks) input.note(Buffer.from(chunk))
  for (let i = 0; i < messages; i++) input.noteMessage([])
  expect(input.isEmpty).toBe(false)
  input.settle(bodyBytes)
  expect(input.isEmpty).toBe(isKnown)
})

it('is known again after a request that leaves no doubt', () => {
  const input = new LaneInput()
  input.note(Buffer.from(`${GET}GE`))
  input.noteMessage([])
  input.settle(null)
  input.note(Buffer.from('T / HTTP/1.1\r\nHost: a\r\n\r\n'))
  input.noteMessage([])
  input.settle(null)
  expect(input.isEmpty).toBe(true)
})

const UPGRADE = 'GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n'
const OFFER = ['Host', 'a', 'Connection', 'Upgrade', 'Upgrade', 'h2c']

it.each<[what: string, chunk: string, fields: string[], isLost: boolean]>([
  ['alone', UPGRADE, OFFER, false],
  ['with another behind it', UPGRADE + GET, OFFER, true],
  ['with the beginning of another', `${UPGRADE}G`, OFFER, true],
  ['with a body', `${UPGRADE}a`, [...OFFER, 'Content-Length', '1'], true],
])('an offer to upgrade %s', (_what, chunk, fields, isLost) => {
  const input = new LaneInput()
  input.note(Buffer.from(chunk))
  input.noteMessage(fields)
  expect(input.hasLost).toBe(isLost)
  input.settle(null)
  expect(input.isEmpty).toBe(false)
  input.note(Buffer.from(GET))
  input.noteMessage([])
  input.settle(null)
  expect(input.isEmpty).toBe(true)
})
