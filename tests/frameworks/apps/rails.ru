# The defaults of a Rails application in development, in one file: forgery protection, permitted hosts, Action Cable.
ENV['RAILS_ENV'] = 'development'
require 'rails'
require 'action_controller/railtie'
require 'action_cable/engine'

class App < Rails::Application
  config.root = __dir__
  config.eager_load = false
  config.logger = Logger.new($stdout)
  config.secret_key_base = 'x' * 64
  config.session_store :cookie_store, key: 'app'
  config.load_defaults 6.1
  config.action_cable.cable = { 'adapter' => 'async' }
  routes.append do
    root to: 'pages#page'
    post '/post', to: 'pages#post'
    get '/away', to: 'pages#away'
    mount ActionCable.server => '/cable'
  end
end

class PagesController < ActionController::Base
  protect_from_forgery with: :exception

  def page
    render inline: '<h1>Rails page</h1><%= form_with(url: "/post", local: true) do |f| %><%= f.submit "Send" %><% end %>'
  end

  def post
    render plain: 'posted'
  end

  def away
    redirect_to "#{request.base_url}/?redirected=1"
  end
end

module ApplicationCable
  class Connection < ActionCable::Connection::Base
  end
end
ActionCable.server.config.cable = { 'adapter' => 'async' }
ActionCable.server.config.connection_class = -> { ApplicationCable::Connection }

App.initialize!
run App
