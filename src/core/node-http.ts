// node:http. Where it is imported, Node looks at each of its exports, and one of them (WebSocket) is a whole client that
// nobody here uses: 30 ms of CPU and 12 MiB at every start. test/architecture.test.ts sees to it that all take it from here.

export const http = process.getBuiltinModule('node:http')
