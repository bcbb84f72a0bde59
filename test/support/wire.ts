// Answers as they stand on the wire: for tests that must see framing, not what a client library makes of it.

export interface WireAnswer {
  readonly version: string
  readonly status: number
  /** Names in lower case, values as latin1 text. */
  readonly fields: readonly (readonly [name: string, value: string])[]
  /** Body with chunks joined, as latin1 text. */
  readonly body: string
  /** How the body was framed. `close`: by the end of the connection. */
  readonly framing: 'length' | 'chunked' | 'close' | 'none'
  /** False when the text ended before the body did. */
  readonly whole: boolean
}

export const field = (answer: WireAnswer | undefined, name: string): string | undefined =>
  answer?.fields.find(([known]) => known === name)?.[1]

/** Reads a whole connection's worth of answers, interim ones among them. methods: of the requests, in order, since an
 *  answer to HEAD has no body; GET where not given. Throws where the text is no HTTP. */
export function readAnswers(received: string, methods: readonly string[] = []): WireAnswer[] {
  const answers: WireAnswer[] = []
  let rest = received
  let finals = 0
  while (rest !== '') {
    const end = rest.indexOf('\r\n\r\n')
    if (end === -1) throw new Error(`no end of a head in ${JSON.stringify(rest.slice(0, 200))}`)
    const [statusLine = '', ...lines] = rest.slice(0, end).split('\r\n')
    const [, version = '', status = ''] = /^HTTP\/(\d\.\d) (\d{3}) [^\r\n]*$/.exec(statusLine) ?? []
    if (status === '') throw new Error(`no status line: ${JSON.stringify(statusLine)}`)
    const fields = lines.map((line) => {
      const colon = line.indexOf(': ')
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 2)] as const
    })
    const head = { version, status: Number(status), fields }
    rest = rest.slice(end + 4)
    const method = methods[finals] ?? 'GET'
    const body = readBody(rest, head.status, fields, method)
    if (head.status >= 200) finals++
    answers.push({ ...head, body: body.text, framing: body.framing, whole: body.whole })
    rest = rest.slice(body.length)
  }
  return answers
}

interface Body {
  readonly text: string
  readonly framing: WireAnswer['framing']
  readonly whole: boolean
  /** Characters taken. */
  readonly length: number
}

function readBody(rest: string, status: number, fields: WireAnswer['fields'], method: string): Body {
  const valuesOf = (name: string) => fields.filter(([known]) => known === name).map(([, value]) => value)
  const lengths = valuesOf('content-length')
  const codings = valuesOf('transfer-encoding')
  if (lengths.length + codings.length > 1) throw new Error(`framed twice: ${JSON.stringify(fields)}`)
  if (method === 'HEAD' || status < 200 || status === 204 || status === 304) {
    return { text: '', framing: 'none', whole: true, length: 0 }
  }
  if (codings.length > 0) return readChunks(rest)
  if (lengths.length === 0) return { text: rest, framing: 'close', whole: true, length: rest.length }
  const length = Number(lengths[0])
  return {
    text: rest.slice(0, length),
    framing: 'length',
    whole: rest.length >= length,
    length: Math.min(length, rest.length),
  }
}

function readChunks(rest: string): Body {
  let text = ''
  let at = 0
  for (;;) {
    const line = /^([0-9A-Fa-f]+)\r\n/.exec(rest.slice(at, at + 12))
    if (line === null) return { text, framing: 'chunked', whole: false, length: rest.length }
    const size = Number.parseInt(line[1] as string, 16)
    const start = at + line[0].length
    text += rest.slice(start, start + size)
    at = start + size + 2
    if (at > rest.length) return { text, framing: 'chunked', whole: false, length: rest.length }
    if (size === 0) return { text, framing: 'chunked', whole: true, length: at }
  }
}
