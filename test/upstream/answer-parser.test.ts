// What an upstream's bytes mean: in one way or in none, however they come in pieces, and never otherwise than another
// strict parser (Node's own) reads them.

import * as fc from 'fast-check'
import http from 'node:http'
import { Duplex } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { type AnswerListener, AnswerParser, MAX_HEAD_BYTES } from '../../src/upstream/answer-parser.ts'

interface Read {
  /** Interim heads first; each as status, framing and fields. */
  heads: { status: number; framing: string; headers: readonly string[] }[]
  body: string
  /** more: with bytes behind it. */
  end: 'no' | 'yes' | 'more' | 'by the end of the connection'
  staysOpen: boolean
  fault: string
}

const NOTHING_YET = (): Read => ({ heads: [], body: '', end: 'no', staysOpen: false, fault: '' })

interface Asked {
  readonly method?: string
  readonly isLenient?: boolean
  readonly before?: string
}

/** Reads pieces, each from a buffer that is wiped afterwards, then the end of the connection. before: a whole answer that
 *  the connection has carried. */
function read(pieces: readonly Buffer[], { method = 'GET', isLenient = false, before }: Asked = {}): Read {
  let found: Read = NOTHING_YET()
  const listener: AnswerListener = {
    onHead() {
      const { status, framing, headers } = parser
      found.heads.push({ status, framing, headers: [...headers] })
    },
    onBody: (bytes, from, to) => (found.body += bytes.toString('latin1', from, to)),
    onEnd(hasMore) {
      found.end = hasMore ? 'more' : 'yes'
      found.staysOpen = parser.staysOpen
    },
  }
  const parser = new AnswerParser(listener)
  if (before !== undefined) {
    parser.expect('GET', false, false)
    parser.take(Buffer.from(before, 'latin1'))
    found = NOTHING_YET()
  }
  parser.expect(method, isLenient, false)
  for (const piece of pieces) {
    const buffer = Buffer.from(piece)
    const isRead = parser.take(buffer)
    buffer.fill('#')
    if (!isRead) return { ...found, fault: parser.fault }
  }
  if (parser.end()) found.end = 'by the end of the connection'
  return found
}

const readText = (text: string, asked: Asked = {}): Read => read([Buffer.from(text, 'latin1')], asked)

const OK = 'HTTP/1.1 200 OK\r\n'
const CHUNKED = `${OK}Transfer-Encoding: chunked\r\n\r\n`

describe('a head', () => {
  it.each([
    ['HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', 200, ['Content-Length', '0']],
    ['HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n', 200, ['Content-Length', '0']],
    ['HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n', 200, ['Content-Length', '0']],
    ['HTTP/1.1 299 caf\xe9 \t so\r\nContent-Length: 0\r\n\r\n', 299, ['Content-Length', '0']],
    ['HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n', 404, ['Content-Length', '0']],
    ['HTTP/1.1 999 x\r\ncontent-length:0\r\n\r\n', 999, ['content-length', '0']],
    [`${OK}A:\r\nB: \t\r\nC: \t x  y \t\r\nContent-Length: 0\r\n\r\n`, 200, ['A', '', 'B', '', 'C', 'x  y']],
    [`${OK}X-Y_z!#$%&'*+.^\`|~0: \x80\xff\r\nContent-Length: 0\r\n\r\n`, 200, ["X-Y_z!#$%&'*+.^`|~0", '\x80\xff']],
    [`${OK}Set-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 0\r\n\r\n`, 200, ['Set-Cookie', 'a=1', 'set-cookie']],
    [`\r\n\r\n${OK}Content-Length: 0\r\n\r\n`, 200, ['Content-Length', '0']],
  ])('[RFC 9112 §4] is read: %j', (text, status, headers) => {
    const { heads, end } = readText(text)
    expect(heads[0]).toMatchObject({ status, headers: expect.arrayContaining(headers) as unknown })
    expect(end).toBe('yes')
  })

  it.each([
    ['another protocol', 'SSH-2.0-OpenSSH\r\n'],
    ['another protocol, as far as it has come', 'HTTQ'],
    ['a version that we did not speak', 'HTTP/2.0 200 OK\r\n\r\n'],
    ['a minor version that there is not', 'HTTP/1.2 200 OK\r\n\r\n'],
    ['no blank behind the version', 'HTTP/1.1\t200 OK\r\n\r\n'],
    ['two blanks behind the version', 'HTTP/1.1  200 OK\r\n\r\n'],
    ['a status of two digits', 'HTTP/1.1 20 OK\r\n\r\n'],
    ['a status of four digits', 'HTTP/1.1 2000 OK\r\n\r\n'],
    ['a status that is no number', 'HTTP/1.1 2x0 OK\r\n\r\n'],
    ['no status', 'HTTP/1.1 \r\n\r\n\r\n'],
    ['a status below 100', 'HTTP/1.1 099 OK\r\n\r\n'],
    ['a change of protocols', 'HTTP/1.1 101 Switching Protocols\r\n\r\n'],
    ['an interim answer of HTTP/1.0', 'HTTP/1.0 103 x\r\n\r\n'],
    ['an interim answer that ends its connection', 'HTTP/1.1 103 x\r\nConnection: close\r\n\r\n'],
    ['a control byte in the reason', 'HTTP/1.1 200 O\x01K\r\n\r\n'],
    ['a line that ends in LF alone', 'HTTP/1.1 200 OK\nA: b\r\n\r\n'],
    ['a line that ends in CR alone', `${OK}A: b\rC: d\r\n\r\n`],
    ['a field that ends in LF alone', `${OK}A: b\nC: d\r\n\r\n`],
    ['a field that goes on in the next line', `${OK}A: b\r\n c\r\n\r\n`],
    ['a first field that begins with a blank', `${OK} A: b\r\n\r\n`],
    ['a field without a name', `${OK}: b\r\n\r\n`],
    ['a field without a colon', `${OK}A b\r\n\r\n`],
    ['a blank before the colon', `${OK}Content-Length : 1\r\n\r\nx`],
    ['a blank within a name', `${OK}A B: c\r\n\r\n`],
    ['NUL in a value', `${OK}A: b\0\r\n\r\n`],
    ['DEL in a value', `${OK}A: b\x7f\r\n\r\n`],
    ['a name beyond ASCII', `${OK}\xc4: b\r\n\r\n`],
    ['two lengths', `${OK}Content-Length: 1\r\nContent-Length: 2\r\n\r\nx`],
    ['one length twice', `${OK}Content-Length: 1\r\ncontent-length: 1\r\n\r\nx`],
    ['a list of lengths', `${OK}Content-Length: 1, 1\r\n\r\nx`],
    ['a length with a sign', `${OK}Content-Length: +1\r\n\r\nx`],
    ['a negative length', `${OK}Content-Length: -1\r\n\r\nx`],
    ['a length in hexadecimal', `${OK}Content-Length: 0x1\r\n\r\nx`],
    ['a length with a fraction', `${OK}Content-Length: 1.0\r\n\r\nx`],
    ['an empty length', `${OK}Content-Length:\r\n\r\nx`],
    ['a length beyond all arithmetic', `${OK}Content-Length: 99999999999999999999\r\n\r\nx`],
    ['a length beside chunks', `${OK}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    ['a coding that was not asked for', `${OK}Transfer-Encoding: gzip\r\n\r\nx`],
    ['a coding before the chunks', `${OK}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`],
    ['chunks twice', `${OK}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    ['chunks that are called otherwise', `${OK}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`],
    ['more fields than anybody needs', `${OK}${'A: b\r\n'.repeat(201)}\r\n`],
    ['a head that is too long', `${OK}A: ${'b'.repeat(MAX_HEAD_BYTES)}\r\n\r\n`],
    ['a head without end', `${OK}A: ${'b'.repeat(MAX_HEAD_BYTES)}`],
  ])('[RFC 9112 §2.2, §5, §6] is refused for %s', (_what, text) => {
    const bytes = Buffer.from(text, 'latin1')
    const { fault, heads } = read([bytes])
    expect(fault).not.toBe('')
    expect(heads).toEqual([])
    const single = Array.from(bytes, (byte) => Buffer.of(byte))
    expect(read(bytes.length < 1000 ? single : [bytes]).fault).toBe(fault)
  })

  it('may have as many fields, and be as long, as is said', () => {
    expect(readText(`${OK}${'A: b\r\n'.repeat(199)}Content-Length: 0\r\n\r\n`).end).toBe('yes')
    const filler = 'x'.repeat(MAX_HEAD_BYTES - OK.length - 30)
    expect(readText(`${OK}A: ${filler}\r\nContent-Length: 0\r\n\r\n`).end).toBe('yes')
  })

  it('[RFC 9110 §15.2] may come after interim ones', () => {
    const early = 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'
    const { heads, body, end } = readText(`HTTP/1.1 100 x\r\n\r\n${early}${OK}Content-Length: 2\r\n\r\nok`)
    expect(heads.map(({ status }) => status)).toEqual([100, 103, 200])
    expect(heads[1]?.headers).toEqual(['Link', '</a>'])
    expect([body, end]).toEqual(['ok', 'yes'])
  })
})

describe('a body', () => {
  it.each<[string, string, Asked, Partial<Read>]>([
    ['by length', `${OK}Content-Length: 3\r\n\r\nabc`, {}, { body: 'abc', end: 'yes' }],
    ['by length, cut off', `${OK}Content-Length: 3\r\n\r\nab`, {}, { body: 'ab', end: 'no' }],
    ['by length, with more', `${OK}Content-Length: 3\r\n\r\nabcd`, {}, { body: 'abc', end: 'more' }],
    ['by chunks', `${CHUNKED}3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n`, {}, { body: 'abc0123456789', end: 'yes' }],
    ['by chunks, in any case', `${OK}transfer-encoding: Chunked\r\n\r\n0\r\n\r\n`, {}, { body: '', end: 'yes' }],
    ['by chunks, with extensions', `${CHUNKED}3;a=b;c="d\te"\r\nabc\r\n0;x\r\n\r\n`, {}, { body: 'abc', end: 'yes' }],
    ['by chunks, with fields behind', `${CHUNKED}0\r\nA: b\r\nContent-Length: 5\r\n\r\n`, {}, { body: '', end: 'yes' }],
    ['by chunks, with more', `${CHUNKED}0\r\n\r\nx`, {}, { body: '', end: 'more' }],
    ['by chunks, cut off behind a chunk', `${CHUNKED}3\r\nabc\r\n`, {}, { body: 'abc', end: 'no' }],
    ['by chunks, cut off in the last line', `${CHUNKED}3\r\nabc\r\n0\r\n\r`, {}, { body: 'abc', end: 'no' }],
    ['by the end', `${OK}\r\nabc`, {}, { body: 'abc', end: 'by the end of the connection' }],
    ['none for HEAD', `${OK}Content-Length: 3\r\n\r\n`, { method: 'HEAD' }, { body: '', end: 'yes' }],
    ['none for HEAD, chunks', CHUNKED, { method: 'HEAD' }, { body: '', end: 'yes' }],
    ['none for HEAD, though it comes', `${OK}Content-Length: 3\r\n\r\nabc`, { method: 'HEAD' }, { end: 'more' }],
    ['none for 204', 'HTTP/1.1 204 x\r\n\r\n', {}, { body: '', end: 'yes', staysOpen: true }],
    ['none for 304', 'HTTP/1.1 304 x\r\nETag: "a"\r\n\r\n', {}, { body: '', end: 'yes', staysOpen: true }],
    ['none for 304 with a length', 'HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\n', {}, { end: 'yes', staysOpen: false }],
    [
      'of a coding that is none, on trust',
      `${OK}Transfer-Encoding: identity\r\n\r\nabc`,
      { isLenient: true },
      { body: 'abc', end: 'by the end of the connection' },
    ],
  ])('[RFC 9112 §6.3] ends %s', (_what, text, asked, expected) => {
    expect(readText(text, asked)).toMatchObject({ ...expected, fault: '' })
  })

  it.each([
    ['no size', `${CHUNKED}\r\nabc`],
    ['no number', `${CHUNKED}zz\r\nabc`],
    ['a sign', `${CHUNKED}+3\r\nabc\r\n0\r\n\r\n`],
    ['a prefix', `${CHUNKED}0x3\r\nabc\r\n0\r\n\r\n`],
    ['a blank behind the size', `${CHUNKED}3 \r\nabc\r\n0\r\n\r\n`],
    ['a blank before the size', `${CHUNKED} 3\r\nabc\r\n0\r\n\r\n`],
    ['a size that ends in LF alone', `${CHUNKED}3\nabc\r\n0\r\n\r\n`],
    ['a size that ends in CR alone', `${CHUNKED}3\rabc\r\n0\r\n\r\n`],
    ['an extension that ends in LF alone', `${CHUNKED}3;a\nabc\r\n0\r\n\r\n`],
    ['a size beyond all arithmetic', `${CHUNKED}fffffffffffffff\r\nabc`],
    ['a size that goes on and on', `${CHUNKED}00000000000000003\r\nabc`],
    ['a chunk longer than its size', `${CHUNKED}2\r\nabc\r\n0\r\n\r\n`],
    ['a chunk shorter than its size', `${CHUNKED}4\r\nabc\r\n0\r\n\r\n`],
    ['a chunk that ends in LF alone', `${CHUNKED}3\r\nabc\n0\r\n\r\n`],
    ['an extension without end', `${CHUNKED}3;${'a'.repeat(17_000)}`],
    ['fields behind that are none', `${CHUNKED}0\r\nA\r\n\r\n`],
    ['fields behind without end', `${CHUNKED}0\r\nA: ${'b'.repeat(MAX_HEAD_BYTES)}`],
  ])('[RFC 9112 §7.1] in chunks is refused for %s', (_what, text) => {
    const found = readText(text)
    expect(found.fault).not.toBe('')
    expect(found.end).toBe('no')
  })

  it.each([
    ['HTTP/1.1', '', true],
    ['HTTP/1.1', 'Connection: close\r\n', false],
    ['HTTP/1.1', 'Connection: keep-alive, Close\r\n', false],
    ['HTTP/1.1', 'connection: x\r\nConnection: close\r\n', false],
    ['HTTP/1.1', 'Connection: closed\r\n', true],
    ['HTTP/1.0', '', false],
    ['HTTP/1.0', 'Connection: Keep-Alive\r\n', true],
  ])('[RFC 9112 §9.3] leaves the connection to %s and %j: %s', (version, fields, staysOpen) => {
    const found = readText(`${version} 200 OK\r\n${fields}Content-Length: 2\r\n\r\nok`)
    expect(found).toMatchObject({ end: 'yes', staysOpen })
  })
})

it('[RFC 9112 §6.1] leaves no connection to chunks of HTTP/1.0', () => {
  const text = 'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n'
  expect(readText(text)).toMatchObject({ end: 'yes', staysOpen: false })
})

describe('bytes that nobody asked for', () => {
  it('are refused', () => {
    const parser = new AnswerParser({ onHead() {}, onBody() {}, onEnd() {} })
    expect(parser.take(Buffer.from('\r\n'))).toBe(false)
  })

  it('are not read any more after stop', () => {
    const calls: string[] = []
    const parser: AnswerParser = new AnswerParser({
      onHead() {
        calls.push('head')
        parser.stop()
      },
      onBody: () => calls.push('body'),
      onEnd: () => calls.push('end'),
    })
    parser.expect('GET', false, false)
    expect(parser.take(Buffer.from(`${OK}Content-Length: 2\r\n\r\nok`))).toBe(true)
    expect(parser.end()).toBe(false)
    expect(calls).toEqual(['head'])
  })
})

// ---- properties ----

const line = fc.constantFrom(
  'Content-Length: 5',
  'Content-Length: 0',
  'Transfer-Encoding: chunked',
  'Transfer-Encoding: identity',
  'Connection: close',
  'A: b',
  ' folded',
  'A : b',
  'X: \x01',
  'no colon',
)
const bodyPart = fc.constantFrom(
  'hello',
  '5\r\nhello\r\n',
  '0\r\n\r\n',
  '0\r\nA: b\r\n\r\n',
  '5;x=y\r\nhello\r\n',
  '\r\n',
  OK,
)
const answerText = fc
  .record({
    before: fc.constantFrom('', '', '\r\n', 'HTTP/1.1 103 x\r\n\r\n', 'HTTP/1.1 103 x\r\nConnection: close\r\n\r\n'),
    status: fc.constantFrom('HTTP/1.1 200 OK', 'HTTP/1.0 200 OK', 'HTTP/1.1 204 x', 'HTTP/1.1 304 x', 'HTTP/1.1 500'),
    lines: fc.array(line, { maxLength: 3 }),
    body: fc.array(bodyPart, { maxLength: 4 }),
    change: fc.option(fc.tuple(fc.nat(200), fc.constantFrom('\r', '\n', ' ', '\0', '0', ':', '')), {
      nil: null,
      freq: 3,
    }),
  })
  .map(({ before, status, lines, body, change }) => {
    const text = `${before}${[status, ...lines].join('\r\n')}\r\n\r\n${body.join('')}`
    if (change === null) return text
    const at = change[0] % text.length
    return text.slice(0, at) + change[1] + text.slice(at + 1)
  })

describe('however the bytes come', () => {
  it('says the same', () => {
    fc.assert(
      fc.property(answerText, fc.array(fc.nat(300), { maxLength: 20 }), (text, cuts) => {
        const bytes = Buffer.from(text, 'latin1')
        const ends = [...new Set([0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].toSorted(
          (a, b) => a - b,
        )
        const pieces = ends.slice(1).map((end, i) => bytes.subarray(ends[i], end))
        const [whole, parts] = [read([bytes]), read(pieces)]
        // What comes behind an answer shows in the piece that it ends in, or as bytes that nobody asked for.
        expect(whole.end === 'more' ? { ...parts, end: 'more', fault: '' } : parts).toEqual(whole)
      }),
      { numRuns: 2000 },
    )
  })
})

/** All that may go wrong where a field is taken for one of the answer before. */
const nearlyAlike = fc.array(
  fc.constantFrom('A: b', 'A: bc', 'A:b', 'A: b ', 'A: b\x01', 'A: b\rX', 'A : b', 'AA: b', 'A:', ': b', ' b', 'a: b'),
  { maxLength: 4 },
)

describe('an answer behind another', () => {
  it('is read as if there had been no other', () => {
    const textOf = (lines: readonly string[]) => [`${OK}Content-Length: 0`, ...lines, '', ''].join('\r\n')
    fc.assert(
      fc.property(nearlyAlike, nearlyAlike, (first, second) => {
        const before = textOf(first)
        fc.pre(readText(before).end === 'yes')
        expect(readText(textOf(second), { before })).toEqual(readText(textOf(second)))
      }),
      { numRuns: 2000 },
    )
  })

  it('leaves that one as it was', () => {
    const lists: string[][] = []
    const parser: AnswerParser = new AnswerParser({
      onHead: () => lists.push(parser.headers),
      onBody() {},
      onEnd() {},
    })
    for (const tag of ['"a"', '"b"']) {
      parser.expect('GET', false, false)
      parser.take(Buffer.from(`${OK}Content-Length: 0\r\nETag: ${tag}\r\nA: b\r\n\r\n`))
    }
    expect(lists[1]).toEqual(['Content-Length', '0', 'ETag', '"b"', 'A', 'b'])
    expect(lists[0]).toEqual(['Content-Length', '0', 'ETag', '"a"', 'A', 'b'])
  })
})

/** The same bytes as Node's own client reads them; null where it refuses them, or they break off. */
function readByNode(text: string): Promise<{ status: number; headers: string[]; body: string } | null> {
  return new Promise((resolve) => {
    const socket = new Duplex({
      read() {},
      write(_chunk, _encoding, done) {
        done()
        setImmediate(() => {
          this.push(Buffer.from(text, 'latin1'))
          this.push(null)
        })
      },
    })
    const request = http.get({ createConnection: () => socket, headers: { Host: 'a' } })
    request.on('error', () => resolve(null))
    request.on('response', (response) => {
      let body = ''
      response.setEncoding('latin1').on('data', (chunk: string) => (body += chunk))
      response.on('error', () => resolve(null))
      response.on('end', () =>
        resolve(response.complete ? { status: response.statusCode ?? 0, headers: response.rawHeaders, body } : null),
      )
      response.on('close', () => resolve(null))
    })
  })
}

describe('what is read', () => {
  it("is what Node's parser reads", async () => {
    let compared = 0
    await fc.assert(
      fc.asyncProperty(answerText, async (text) => {
        const own = readText(text)
        if (own.end === 'no') return
        const theirs = await readByNode(text)
        // It looks at what is behind an answer, and refuses the answer for that as well.
        if (theirs === null && own.end === 'more') return
        const final = own.heads.at(-1)
        expect({ status: final?.status, headers: final?.headers, body: own.body }).toEqual(theirs)
        compared++
      }),
      { numRuns: Number(process.env['WEIRGATE_MODEL_RUNS'] ?? 1000) },
    )
    expect(compared).toBeGreaterThan(100)
  })
})
