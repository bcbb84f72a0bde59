import { describe, expect, it } from 'vitest'
import { listenOptions } from '../../src/server/options.ts'
import { explainParseError, isTruncation } from '../../src/server/parse-error.ts'

const OPTIONS = listenOptions.parse('127.0.0.1:0')

/** As node:http gives it, with the parser stopped at the mark `^`. */
function parseError(code: string, packet: string | null = null, reason = ''): Error {
  if (packet === null) return Object.assign(new Error(code), { code, reason })
  const bytesParsed = packet.indexOf('^')
  const rawPacket = Buffer.from(packet.replace('^', ''), 'latin1')
  return Object.assign(new Error(code), { code, reason, rawPacket, bytesParsed })
}

describe('a message that cannot be read', () => {
  it.each([
    ['HPE_INVALID_METHOD', '^BREW / HTTP/1.1\r\n', '', 'method_unknown'],
    ['HPE_INVALID_METHOD', 'B^REW http://a/ HTTP/1.1\r\n', '', 'method_unknown'],
    ['HPE_INVALID_METHOD', 'B^REW * HTTP/1.1\r\n', '', 'method_unknown'],
    ['HPE_INVALID_METHOD', 'GET / HTTP/1.1\r\nHost: a\r\n\r\nB^REW / HTTP/1.1\r\n', '', 'method_unknown'],
    ['HPE_INVALID_METHOD', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n^nonsense', '', 'bad_message'],
    ['HPE_INVALID_METHOD', '^\x16\x03\x01', '', 'bad_message'],
    ['HPE_INVALID_METHOD', '^BREW \x00', '', 'bad_message'],
    ['HPE_INVALID_METHOD', '^', '', 'bad_message'],
    ['HPE_INVALID_METHOD', null, '', 'bad_message'],
    ['HPE_INVALID_VERSION', 'GET / HTTP/1.2^\r\n', 'Invalid HTTP version', 'version_unsupported'],
    ['HPE_INVALID_VERSION', 'GET / HTTP/1.1^\n', 'Expected CRLF after version', 'bad_message'],
    ['HPE_PAUSED_H2_UPGRADE', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n^', '', 'version_unsupported'],
    ['HPE_HEADER_OVERFLOW', 'GET /aaaaaaa^aaa', '', 'target_too_long'],
    ['HPE_HEADER_OVERFLOW', 'GET /aaaaaaa^aaa HTTP/1.1\r\n', '', 'target_too_long'],
    ['HPE_HEADER_OVERFLOW', 'GET / HTTP/1.1\r\nX: aaa^aa', '', 'head_too_large'],
    ['HPE_HEADER_OVERFLOW', 'aaaaaaaaaaa^aaa', '', 'head_too_large'],
    ['HPE_HEADER_OVERFLOW', null, '', 'head_too_large'],
    ['ERR_HTTP_REQUEST_TIMEOUT', null, '', 'timeout_head'],
    ['HPE_INVALID_HEADER_TOKEN', 'GET / HTTP/1.1\r\nX ^: a', '', 'bad_message'],
    ['HPE_SOMETHING_NEW', null, '', 'bad_message'],
  ])('with %s at %j (%s) is %s', (code, packet, reason, expected) => {
    expect(explainParseError(parseError(code, packet, reason), OPTIONS).code).toBe(expected)
  })
})

describe('an end in the middle', () => {
  it.each([
    ['HPE_INVALID_EOF_STATE', true],
    ['ECONNRESET', true],
    ['EPIPE', true],
    ['ERR_STREAM_DESTROYED', true],
    ['HPE_INVALID_METHOD', false],
    ['ERR_HTTP_REQUEST_TIMEOUT', false],
  ])('is %s: %s', (code, expected) => {
    expect(isTruncation(parseError(code))).toBe(expected)
    expect(isTruncation(new Error('without a code'))).toBe(true)
  })
})
