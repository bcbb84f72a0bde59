// What a request with a key has come to, for those that have waited for it.

import type { GatewayError } from '../core/errors.ts'
import type { Answer } from './answer.ts'

export type Ending =
  | { readonly kind: 'answer'; readonly answer: Answer }
  /** It failed, or it cannot be told any more what it was answered. */
  | { readonly kind: 'error'; readonly error: GatewayError }
