# Where the gem grpc keeps the interop programs that it publishes: beside its library.
def published(program)
  library = $LOAD_PATH.resolve_feature_path('grpc')&.last || abort('the gem grpc is missing')
  File.join(File.dirname(library), '..', 'pb', 'test', program)
end
