// What a source of users says of one request.

import type { User } from '../core/context.ts'

export interface Finding {
  readonly user: User | null
  /** Something was shown that proves nothing. */
  readonly isRefused: boolean
}

export const NOBODY: Finding = { user: null, isRefused: false }
export const REFUSED: Finding = { user: null, isRefused: true }
