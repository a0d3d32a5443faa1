# The image of the driver. The controller needs only the binary; the node plugin runs mkfs, blkid, e2fsck, mount and umount, pinned here by
# the distribution's release so that every node formats alike.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /rds-csi ./cmd/rds-csi

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends e2fsprogs xfsprogs util-linux mount \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /rds-csi /usr/local/bin/rds-csi
ENTRYPOINT ["/usr/local/bin/rds-csi"]
