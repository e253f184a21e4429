package api

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"hacluster/cmd/internal/caller"
	"hacluster/cmd/internal/identity/pki"
	adminv1 "hacluster/proto/admin/v1"
)

// leastRole is what each method of the service demands. A method that is not in here is refused to everybody: who adds
// one decides here whose it is. Viewers read; operators move roles and resync, which endangers no acknowledged write
// without their explicit consent; what changes the members of the cluster or creates and deletes data is the admins'.
var leastRole = map[string]pki.Role{
	"Status":       pki.RoleViewer,
	"Failovers":    pki.RoleViewer,
	"VolumeList":   pki.RoleViewer,
	"NodeList":     pki.RoleViewer,
	"Events":       pki.RoleViewer,
	"ConfigShow":   pki.RoleViewer,
	"Failover":     pki.RoleOperator,
	"NodeDrain":    pki.RoleOperator,
	"Maintenance":  pki.RoleOperator,
	"Fence":        pki.RoleOperator,
	"FenceConfirm": pki.RoleOperator, // as weighty as a promotion by force
	"FenceTest":    pki.RoleOperator, // it has programs run with the cluster's passwords
	"VolumeResync": pki.RoleOperator,
	"VolumePause":  pki.RoleOperator,
	"VolumeVerify": pki.RoleOperator, // with repair too: it overwrites what is no copy any more, and demands that word
	"RescueList":   pki.RoleViewer,
	"RescueExport": pki.RoleOperator, // they may read volumes over NBD too
	"RescueDelete": pki.RoleAdmin,    // it may be the last copy of acknowledged writes
	"Apply":        pki.RoleAdmin,
	"ConfigExport": pki.RoleAdmin, // the text holds what ConfigShow leaves out
	"VolumeCreate": pki.RoleAdmin,
	"NodeAdd":      pki.RoleAdmin,
	"NodeRemove":   pki.RoleAdmin,
}

// reasonRole is the log's message and the counter's name for refused calls.
const reasonRole = "refused: the caller's role does not cover the command"

// Authorize makes a server refuse calls of the admin service for which the caller's role is not enough. refused is told
// why, with attributes for a log; it must not wait. Calls of other services are not looked at.
func Authorize(refused func(reason string, args ...any)) []grpc.ServerOption {
	check := func(ctx context.Context, full string) error {
		method, ours := strings.CutPrefix(full, "/"+adminv1.Admin_ServiceDesc.ServiceName+"/")
		if !ours {
			return nil
		}
		who, least := caller.Of(ctx), leastRole[method]
		if who.Role().Covers(least) {
			return nil
		}
		refused(reasonRole, "caller", who.String(), "method", method, "wanted", string(least))
		return status.Error(codes.PermissionDenied, fmt.Sprintf("%s may not do this (%s): the role %s is wanted: name another user with --user", who, method, orNobody(least)))
	}
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if err := check(ctx, info.FullMethod); err != nil {
			_ = grpc.SetTrailer(ctx, metadata.Pairs(answeredKey, "1"))
			return nil, err
		}
		return next(ctx, req)
	}
	stream := func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if err := check(s.Context(), info.FullMethod); err != nil {
			s.SetTrailer(metadata.Pairs(answeredKey, "1"))
			return err
		}
		return next(srv, s)
	}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(unary), grpc.ChainStreamInterceptor(stream)}
}

func orNobody(r pki.Role) string {
	if r == "" {
		return "of nobody"
	}
	return string(r)
}
