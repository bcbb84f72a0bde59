// What a source of users says of one request.

import type { RequestContext, User } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { getHeaders } from '../http/headers.ts'

export interface Finding {
  readonly user: User | null
  /** Something was shown that proves nothing. */
  readonly isRefused: boolean
}

export const NOBODY: Finding = { user: null, isRefused: false }
export const REFUSED: Finding = { user: null, isRefused: true }

/** The value of a field that says who asks, '' where it is absent. Of two lines nobody knows which one the upstream goes by:
 *  who is anonymous here, out of a list and under no limit, may be somebody there. So there is no such request. */
export function onlyLine({ headers }: Pick<RequestContext, 'headers'>, lowerName: string): string {
  const [value = '', ...more] = getHeaders(headers, lowerName)
  if (more.length > 0) throw new GatewayError('bad_message', `The field ${lowerName} may come only once.`)
  return value
}
