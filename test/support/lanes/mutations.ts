// Conversations made of those of the corpus by chance: bytes changed, lines doubled, requests put together and taken
// apart. The same seed makes the same ones, each by its number alone.

import { FINISHED, SETTLED, type Step, type Talk, act, move } from './pair.ts'
import type { Row } from './rows.ts'
import { PROXY } from './table.ts'

/** Numbers from 0 to below 1, the same for the same seed (mulberry32). */
export type Chance = () => number

export function chanceOf(seed: number, number: number): Chance {
  let state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b)) >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** Requests longer than that are cut, since most of their bytes are the same. */
const MAX_CHARS = 3000
/** Everything that some parser somewhere takes for something else. */
const SPECIAL = '\0\t\n\v\f\r !"#%&\'()*+,-./0159:;<=>?@AGHZ[\\]^_`az{|}~\x7f\x80\x85\xa0\xe4\xff'
// oxfmt-ignore
const WORDS = [
  '\r\n', '\r\n\r\n', '\n\n', '\r', ': ', ':', ' ', ', ', 'GET ', 'HEAD ', 'POST ', ' HTTP/1.1\r\n', ' HTTP/1.0\r\n',
  'Host: gateway.test\r\n', 'Host: other.test\r\n', 'Connection: close\r\n', 'Connection: keep-alive\r\n',
  'Connection: X-Client\r\n', 'Content-Length: 0\r\n', 'Content-Length: 5\r\n', 'Transfer-Encoding: chunked\r\n',
  'Expect: 100-continue\r\n', 'Upgrade: h2c\r\n', 'Cookie: a=1\r\n', 'Authorization: x\r\n', 'Accept-Encoding: br\r\n',
  'If-None-Match: "one"\r\n', 'If-None-Match: *\r\n', 'Range: bytes=0-3\r\n', 'Cache-Control: no-cache\r\n',
  'X-Client: a\r\n', 'X-Forwarded-For: 192.0.2.1\r\n', 'X-Request-Id: x\r\n', '/plain', '/few', '/../', '/./', '%2e',
  '%2F', '%', '?', '#', '0\r\n\r\n', '5\r\nhello\r\n', 'hello', '\x80',
]

const ADDRESSES = ['127.0.0.1', '127.0.0.1', '127.0.0.1', PROXY]

export type Generate = (chance: Chance) => Talk

/** Requests that are worth changing, and not only by what they are: most of a conversation is made of few, so that they
 *  are in memory, and changes are seen against that. */
const HOT_SHARE = 0.6

/** Of the conversations of these rows. hot: what most of them are made of. */
export function compileMutations(hot: readonly Row[], rows: readonly Row[]): Generate {
  const [hotPool, pool] = [poolOf(hot), poolOf(rows)]

  return (chance) => {
    const upTo = (limit: number): number => Math.floor(chance() * limit)
    const oneOf = <T>(all: readonly T[] | string): T => all[upTo(all.length)] as T
    const request = (): string => oneOf(chance() < HOT_SHARE ? hotPool : pool)
    const dice = { upTo, oneOf, request, chance }
    const steps: Step[] = []
    const count = 1 + upTo(4)
    for (let i = 0; i < count; i++) {
      steps.push(...split(chance() < 0.5 ? mutated(request(), dice) : request(), dice))
      if (chance() < 0.6) steps.push(SETTLED)
      if (chance() < 0.01) steps.push(move(upTo(2000)))
      if (chance() < 0.002) steps.push(act(({ gateway }) => gateway.purge({ prefix: '/' })))
    }
    if (chance() < 0.1) steps.push(FINISHED)
    return { steps, from: oneOf(ADDRESSES), last: chance() < 0.7 ? 'apart' : 'behind' }
  }
}

function poolOf(rows: readonly Row[]): readonly string[] {
  const requests = rows
    .flatMap(({ steps }) => steps.filter((step): step is string => typeof step === 'string'))
    // What is huge would be most of the work, and its bytes say nothing new.
    .filter((bytes) => bytes.length > 3 && !bytes.includes('/huge'))
    .map((bytes) => bytes.slice(0, MAX_CHARS))
  return [...new Set(requests)]
}

interface Dice {
  readonly chance: Chance
  readonly upTo: (limit: number) => number
  readonly oneOf: <T>(all: readonly T[] | string) => T
  readonly request: () => string
}

function mutated(bytes: string, dice: Dice): string {
  let text = bytes
  const times = dice.chance() < 0.6 ? 1 : 1 + dice.upTo(3)
  for (let i = 0; i < times; i++) text = dice.oneOf(OPERATORS)(text, dice)
  return text
}

type Operator = (text: string, dice: Dice) => string

const OPERATORS: readonly Operator[] = [
  function flipBit(text, { upTo }) {
    const at = upTo(text.length)
    return replaced(text, at, 1, String.fromCharCode((text.charCodeAt(at) ^ (1 << upTo(8))) & 0xff))
  },
  function replaceByte(text, { upTo, oneOf }) {
    return replaced(text, upTo(text.length), 1, oneOf<string>(SPECIAL))
  },
  function insertByte(text, { upTo, oneOf }) {
    return replaced(text, upTo(text.length + 1), 0, oneOf<string>(SPECIAL))
  },
  function insertAnyByte(text, { upTo }) {
    return replaced(text, upTo(text.length + 1), 0, String.fromCharCode(upTo(256)))
  },
  function insertWord(text, { upTo, oneOf }) {
    return replaced(text, upTo(text.length + 1), 0, oneOf(WORDS))
  },
  function insertLine(text, { oneOf, upTo }) {
    const lines = text.split('\r\n')
    return lines.toSpliced(1 + upTo(lines.length), 0, oneOf(WORDS).trimEnd()).join('\r\n')
  },
  function remove(text, { upTo }) {
    return replaced(text, upTo(text.length), 1 + upTo(3), '')
  },
  function removeLine(text, { upTo }) {
    const lines = text.split('\r\n')
    return lines.toSpliced(upTo(lines.length), 1).join('\r\n')
  },
  function doubleLine(text, { upTo }) {
    const lines = text.split('\r\n')
    const at = upTo(lines.length)
    return lines.toSpliced(at, 0, lines[at] as string).join('\r\n')
  },
  function swapLines(text, { upTo }) {
    const lines = text.split('\r\n')
    const [a, b] = [upTo(lines.length), upTo(lines.length)]
    return lines
      .with(a, lines[b] as string)
      .with(b, lines[a] as string)
      .join('\r\n')
  },
  function takeLine(text, { request, upTo, oneOf }) {
    const lines = text.split('\r\n')
    return lines.toSpliced(1 + upTo(lines.length), 0, oneOf(request().split('\r\n'))).join('\r\n')
  },
  function doublePiece(text, { upTo }) {
    const at = upTo(text.length)
    const piece = text.slice(at, at + 1 + upTo(20))
    return replaced(text, at, 0, piece)
  },
  function changeCase(text, { upTo, chance }) {
    const at = upTo(text.length)
    const piece = text.slice(at, at + 1 + upTo(12))
    return replaced(text, at, piece.length, chance() < 0.5 ? piece.toUpperCase() : piece.toLowerCase())
  },
  function breakLines(text, { oneOf }) {
    return text.replaceAll('\r\n', oneOf(['\n', '\r', '\r\n ', '\r\n\r\n', '\n\r']))
  },
  function breakOneLine(text, { upTo, oneOf }) {
    const lines = text.split('\r\n')
    const at = 1 + upTo(lines.length - 1)
    return (
      lines.slice(0, at).join('\r\n') +
      oneOf(['\n', '\r', '\r\r\n', ' \r\n', '\r\n ', '\0\r\n']) +
      lines.slice(at).join('\r\n')
    )
  },
  function splice(text, { request, upTo }) {
    const other = request()
    return text.slice(0, upTo(text.length)) + other.slice(upTo(other.length))
  },
  function spliceAtLine(text, { request, upTo }) {
    const [lines, others] = [text.split('\r\n'), request().split('\r\n')]
    return [...lines.slice(0, upTo(lines.length)), ...others.slice(upTo(others.length))].join('\r\n')
  },
  function append(text, { request }) {
    return text + request()
  },
  function cutOff(text, { upTo }) {
    return text.slice(0, upTo(text.length))
  },
]

const replaced = (text: string, at: number, length: number, by: string): string =>
  // toUpperCase may leave latin1.
  (text.slice(0, at) + by + text.slice(at + length)).replaceAll(/[^\0-\xff]/g, '?')

/** Into packets, most often one. */
function split(bytes: string, { chance, upTo }: Dice): Step[] {
  if (chance() < 0.8) return [bytes]
  const at = upTo(bytes.length)
  const pieces = [bytes.slice(0, at), bytes.slice(at)].filter((piece) => piece !== '')
  const [first = '', ...rest] = pieces
  return chance() < 0.5 ? pieces : [first, SETTLED, ...rest]
}

/** A conversation as text that shows every byte. */
export const shownTalk = ({ steps, from = '127.0.0.1', last }: Talk): string =>
  [`from ${from}, the last request ${last}:`, ...steps.map((step) => JSON.stringify(step))].join('\n  ')
