// Ids of requests, for X-Request-Id and the log.

/** Unique to this process by its beginning, within it by its end. */
const ID_PREFIX = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}-`
let requests = 0
export const nextRequestId = (): string => ID_PREFIX + (++requests).toString(36)
