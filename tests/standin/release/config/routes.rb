Rails.application.routes.draw do
  get "/health", to: "pages#health"
  root to: "pages#show"
  get "/:page", to: "pages#show", constraints: { page: /about|explore|public|privacy-policy|terms-of-service/ }
  get "/manifest", to: "pages#manifest"
  get "/actor", to: "pages#actor", as: :actor
  get "/sidekiq", to: "pages#guarded"
  get "/pghero", to: "pages#guarded"

  get "/.well-known/host-meta", to: "well_known#host_meta"
  get "/.well-known/webfinger", to: "well_known#webfinger"
  get "/.well-known/nodeinfo", to: "well_known#nodeinfo_index"
  get "/nodeinfo/2.0", to: "well_known#nodeinfo", as: :nodeinfo

  get "/users/:username", to: "accounts#redirect", constraints: { username: %r{[^/.]+} }
  get "/@:username", to: "accounts#show", constraints: { username: %r{[^/.]+} }, as: :profile
  get "/@:username/:id", to: "accounts#status", constraints: { username: %r{[^/.]+}, id: /\d+/ }

  scope "/auth" do
    get "sign_in", to: "auth/sessions#new", as: :new_user_session
    post "sign_in", to: "auth/sessions#create"
    delete "sign_out", to: "auth/sessions#destroy", as: :destroy_user_session
    get "sign_up", to: "auth/registrations#new", as: :new_user_registration
    post "/", to: "auth/registrations#create", as: :user_registration
    post "acceptance", to: "auth/registrations#acceptance", as: :auth_acceptance
    get "edit", to: "auth/registrations#edit", as: :edit_user_registration
    put "/", to: "auth/registrations#update"
    get "password/new", to: "auth/passwords#new", as: :new_user_password
    post "password", to: "auth/passwords#create", as: :user_password
    get "password/edit", to: "auth/passwords#edit", as: :edit_user_password
    put "password", to: "auth/passwords#update"
    get "confirmation", to: "auth/confirmations#show", as: :auth_confirmation
    get "setup", to: "auth/confirmations#setup", as: :auth_setup
  end
  get "/invite/:invite_code", to: "auth/registrations#new", as: :public_invite
  resources :invites, only: %i[index create destroy]

  get "/settings/otp_authentication", to: "settings/otp#show", as: :settings_otp_authentication
  post "/settings/otp_authentication", to: "settings/otp#create"
  get "/settings/two_factor_authentication/confirmation/new", to: "settings/otp#confirmation", as: :new_settings_two_factor_authentication_confirmation
  post "/settings/two_factor_authentication/confirmation", to: "settings/otp#confirm", as: :settings_two_factor_authentication_confirmation

  get "/settings/delete", to: "settings/deletes#show", as: :settings_delete
  delete "/settings/delete", to: "settings/deletes#destroy"
  get "/settings/migration", to: "settings/migrations#show", as: :settings_migration
  post "/settings/migration", to: "settings/migrations#create"
  post "/settings/migration/redirect", to: "settings/migrations#redirect", as: :settings_migration_redirect
  get "/statuses_cleanup", to: "statuses_cleanup#show", as: :statuses_cleanup
  match "/statuses_cleanup", to: "statuses_cleanup#update", via: %i[put patch]

  get "/admin/settings/:section", to: "admin/settings#show", as: :admin_settings
  match "/admin/settings/:section", to: "admin/settings#update", via: %i[post put patch]
  get "/admin/accounts", to: "admin/accounts#index", as: :admin_accounts
  post "/admin/accounts/:id/approve", to: "admin/accounts#approve", as: :approve_admin_account
  post "/admin/accounts/:id/reject", to: "admin/accounts#reject", as: :reject_admin_account

  get "/oauth/authorize", to: "oauth/authorizations#new", as: :oauth_authorization
  post "/oauth/authorize", to: "oauth/authorizations#create"
  get "/oauth/authorize/native", to: "oauth/authorizations#native", as: :oauth_native
  post "/oauth/token", to: "oauth/tokens#create"
  post "/oauth/revoke", to: "oauth/tokens#revoke"

  scope "/api", module: "api/v1", defaults: { format: :json } do
    get "v2/instance", to: "instances#v2"
    post "v2/media", to: "media#create"
    scope "v1" do
      get "instance", to: "instances#v1"
      %w[rules privacy_policy terms_of_service extended_description domain_blocks].each { |part| get "instance/#{part}", to: "instance_texts##{part}" }
      get "custom_emojis", to: "instance_texts#custom_emojis"
      get "announcements", to: "instance_texts#announcements"
      post "apps", to: "apps#create"
      post "push/subscription", to: "push#create"
      get "accounts/verify_credentials", to: "accounts#verify_credentials"
      get "accounts/lookup", to: "accounts#lookup"
      resources :accounts, only: %i[create show] do
        get :statuses, on: :member
      end
      resources :statuses, only: %i[create show destroy]
      resources :media, only: %i[create show update]
      get "directory", to: "accounts#directory"
      get "timelines/public", to: "timelines#public"
      get "timelines/home", to: "timelines#home"
      get "admin/accounts", to: "admin_accounts#index"
      post "admin/accounts/:id/approve", to: "admin_accounts#approve"
    end
  end

  match "*path", to: "not_found#show", via: :all
end
