// What node:http says when it cannot read a request, in our words. Codes and reasons are llhttp's; a code that is not
// known here is a message that cannot be read in one way only, and that is what its client is told.

import { GatewayError } from '../core/errors.ts'
import type { ListenOptions } from './options.ts'

/** As the clientError event gives it. rawPacket: the bytes just read; bytesParsed: how many of them were beyond doubt. */
type ParseError = Error & { code?: string; reason?: string; rawPacket?: Buffer; bytesParsed?: number }

/** True when the connection ended or broke in the middle of a request: there is nobody left to tell. */
export const isTruncation = ({ code }: ParseError): boolean =>
  code === 'HPE_INVALID_EOF_STATE' || code === undefined || !(code.startsWith('HPE_') || code.startsWith('ERR_HTTP_'))

/** True when node:http has waited for a whole head. */
export const isHeadTimeout = ({ code }: ParseError): boolean => code === 'ERR_HTTP_REQUEST_TIMEOUT'

/** The refusal for what could not be read. */
export function explainParseError(error: ParseError, options: ListenOptions): GatewayError {
  switch (error.code ?? '') {
    case 'HPE_HEADER_OVERFLOW':
      return isWithinTarget(error)
        ? new GatewayError('target_too_long', `The request target may have ${options.target} bytes.`)
        : new GatewayError('head_too_large', `A request head may have ${options.headBytes} bytes.`)
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new GatewayError('timeout_head', `A request head must come within ${options.headTimeout} ms.`)
    case 'HPE_INVALID_METHOD':
      if (METHOD_AND_TARGET.test(lineInDoubt(error)))
        return new GatewayError('method_unknown', 'This method is not known here.')
      break
    case 'HPE_INVALID_VERSION':
      // The same code stands for a bare line feed behind a version that is fine.
      if (error.reason === 'Invalid HTTP version') return new GatewayError('version_unsupported', 'Speak HTTP/1.1.')
      break
    case 'HPE_PAUSED_H2_UPGRADE':
      return new GatewayError('version_unsupported', 'Speak HTTP/1.1.')
    default:
  }
  return new GatewayError('bad_message', 'The request cannot be read in one way only.')
}

const METHOD_AND_TARGET = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32} [/*A-Za-z]/

/** True where the bytes just read begin with a request line and stopped within it. A line that came in pieces does not
 *  tell, and counts as a field. */
function isWithinTarget({ rawPacket, bytesParsed = 0 }: ParseError): boolean {
  if (rawPacket === undefined || rawPacket.subarray(0, bytesParsed).includes('\n')) return false
  return METHOD_AND_TARGET.test(rawPacket.toString('latin1', 0, 64))
}

/** The beginning of the line at which parsing stopped, which need not be the first of the bytes just read. */
function lineInDoubt({ rawPacket, bytesParsed = 0 }: ParseError): string {
  if (rawPacket === undefined) return ''
  const start = bytesParsed === 0 ? 0 : rawPacket.lastIndexOf('\n', bytesParsed - 1) + 1
  return rawPacket.toString('latin1', start, start + 64)
}
