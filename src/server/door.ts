// What the server asks of the gateway: answers to requests, and to be told when they are over.

import type { Reply, RequestContext } from '../core/context.ts'

/** What a lane needs of the gateway. */
export interface Door {
  /** Never throws, never rejects. */
  answer(ctx: RequestContext): Reply | Promise<Reply>
  /** The answer to a GET or HEAD that is at hand in memory, as answer() would give it. null: there is none, and nothing has
   *  happened; answer() may be asked with the same context. Never throws, never rejects. */
  answerNow(ctx: RequestContext): Reply | Promise<Reply> | null
  /** Called once for each request, when its answer has ended or broken off. */
  record(ctx: RequestContext): void
  /** False while shutting down: connections are closed after their answer. */
  mayReuseConnections(): boolean
}
