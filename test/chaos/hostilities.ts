// Answers that are none, or that are more than one, by name: what an upstream sends, and what may become of it. Between
// two pieces it waits a moment.

import { gzipSync } from 'node:zlib'

/** refused: 502 or 504 in place of it; broken: its head, and a visible break; whole: it is none of ours to judge. */
export type End = 'refused' | 'broken' | 'whole'

export interface Hostility {
  /** forever: the last piece is sent again and again. */
  readonly sends: readonly (string | Buffer)[]
  readonly lastly: 'stay' | 'end' | 'reset' | 'forever'
  readonly ends: readonly End[]
  /** Its end is beyond doubt, or was for a moment. */
  readonly mayReuse?: true
  /** More of it comes when another may have been asked on its connection, who cannot tell: so it is asked for alone. */
  readonly isLate?: true
}

const OK = 'HTTP/1.1 200 OK\r\n'
const CHUNKED = `${OK}Transfer-Encoding: chunked\r\n\r\n`
const SECOND = `${OK}Content-Length: 6\r\n\r\nSECOND`
/** 100 MiB of nothing, in 100 KiB. */
const BOMB = gzipSync(Buffer.alloc(100 * 1024 * 1024))

export const HOSTILITIES: Readonly<Record<string, Hostility>> = {
  'a second answer that nobody asked for': {
    sends: [`${OK}Content-Length: 2\r\n\r\nok${SECOND}`],
    lastly: 'stay',
    ends: ['whole', 'refused'],
  },
  'a second answer a moment later': {
    sends: [`${OK}Content-Length: 2\r\n\r\nok`, SECOND],
    lastly: 'stay',
    ends: ['whole'],
    mayReuse: true,
    isLate: true,
  },
  'a body that ends too soon': { sends: [`${OK}Content-Length: 100\r\n\r\nshort`], lastly: 'end', ends: ['broken'] },
  'a body that is reset': { sends: [`${OK}Content-Length: 100\r\n\r\nshort`], lastly: 'reset', ends: ['broken'] },
  'a body that stops': { sends: [`${OK}Content-Length: 100\r\n\r\nshort`], lastly: 'stay', ends: ['broken'] },
  'chunks without an end': { sends: [`${CHUNKED}5\r\nshort\r\n`], lastly: 'end', ends: ['broken'] },
  'chunks of a size that is none': { sends: [`${CHUNKED}5\r\nshort\r\n`, 'zz\r\n'], lastly: 'stay', ends: ['broken'] },
  'chunks for ever': { sends: [CHUNKED, `4000\r\n${'x'.repeat(0x4000)}\r\n`], lastly: 'forever', ends: ['broken'] },
  'a length and chunks': {
    sends: [`${OK}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`],
    lastly: 'stay',
    ends: ['refused'],
  },
  'two lengths': {
    sends: [`${OK}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!`],
    lastly: 'stay',
    ends: ['refused'],
  },
  'a head of 100 KiB': { sends: [`${OK}X-Long: ${'x'.repeat(100 * 1024)}\r\n\r\n`], lastly: 'stay', ends: ['refused'] },
  'a thousand interim answers': {
    sends: ['HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'.repeat(1000), `${OK}Content-Length: 2\r\n\r\nok`],
    lastly: 'stay',
    ends: ['refused', 'whole'],
    mayReuse: true,
  },
  'a bare CR in a value': {
    sends: [`${OK}X-Split: a\rSet-Cookie: b=1\r\nContent-Length: 2\r\n\r\nok`],
    lastly: 'stay',
    ends: ['refused'],
  },
  'a NUL in a value': { sends: [`${OK}X-Nul: a\0b\r\nContent-Length: 2\r\n\r\nok`], lastly: 'stay', ends: ['refused'] },
  'no HTTP': { sends: ['SSH-2.0-OpenSSH_9.2\r\n'], lastly: 'stay', ends: ['refused'] },
  nothing: { sends: [], lastly: 'end', ends: ['refused'] },
  'a bomb': {
    sends: [`${OK}Content-Encoding: gzip\r\nContent-Length: ${BOMB.length}\r\n\r\n`, BOMB],
    lastly: 'stay',
    ends: ['whole'],
    mayReuse: true,
  },
}
